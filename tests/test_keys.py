"""Every name makes a key that files hold, no two make the same, and the name is not lost."""

from __future__ import annotations

import json
import string

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scset_tools import _keys

CONTROL = "".join(map(chr, [*range(32), 127, 133, 0x2028]))
NAMES = [
    *string.printable,
    *(f"a{c}b" for c in [*string.printable, *CONTROL]),
    *(
        "",
        ".",
        "..",
        "...",
        "_index",
        "__x",
        "/",
        "a/",
        "/a",
        "a//b",
        "a/./b",
        "%2F",
        "a%2Fb",
        "a/b",
        "50%",
        "50%/x",
        "%%2F",
        "%25",
    ),
    *("HIV+/ART", "ü β-cell ☃", "😀", "é", "e\u0301", "\ud800", "x" * 300, "y" * 3000, "é" * 200, "/" * 500),
    *("=1+1", "+x", "-x", "@x", "nan", " lead", "trail "),
]


def object_of_keys(names):
    keys = [_keys.key(name) for name in dict.fromkeys(names)]
    n = len(keys)
    adata = ad.AnnData(np.ones((2, 1), np.float32), obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=["g"]))
    adata.obs = pd.DataFrame(np.arange(2.0 * n).reshape(2, n), index=adata.obs_names, columns=keys)
    adata.obsm["table"] = adata.obs.copy()
    for i, key in enumerate(keys[:: max(1, n // 12)]):
        adata.obsm[key], adata.uns[key] = np.full((2, 1), float(i)), {key: i}
    adata.varm.update({key: np.ones((1, 2)) for key in keys[-12:]})
    _keys.remember(adata.uns, names)
    return adata


def assert_same(back, adata):
    assert list(back.obs.columns) == list(adata.obs.columns)
    np.testing.assert_array_equal(back.obs.to_numpy(), adata.obs.to_numpy())
    assert list(back.obsm["table"].columns) == list(adata.obsm["table"].columns)
    for part in ("obsm", "varm"):
        assert set(getattr(back, part).keys()) == set(getattr(adata, part).keys())
    assert {k: v for k, v in back.uns.items() if k != _keys.NAMES}.keys() == adata.uns.keys() - {_keys.NAMES}
    assert json.loads(back.uns[_keys.NAMES]) == json.loads(adata.uns[_keys.NAMES])


def test_h5ad_holds_every_key(tmp_path):
    adata = object_of_keys(NAMES)
    adata.write_h5ad(tmp_path / "keys.h5ad")
    back = ad.read_h5ad(tmp_path / "keys.h5ad")
    assert_same(back, adata)
    assert [_keys.name_of(k, back.uns) for k in back.obs] == list(dict.fromkeys(NAMES))


def test_zarr_holds_every_key(tmp_path):
    pytest.importorskip("zarr")
    letters = string.printable + CONTROL  # zarr makes many files for each column: several characters in one
    odd = (
        "",
        ".",
        "..",
        "_index",
        "/a",
        "a//b",
        "%2F",
        "\ud800",
        "x" * 3000,
        "é" * 200,
        "/" * 500,
        "HIV+/ART",
        "a/b",
        "a",
    )
    names = ["".join(letters[i : i + 12]) for i in range(0, len(letters), 12)] + list(odd)
    adata = object_of_keys(names)
    adata.write_zarr(tmp_path / "keys.zarr")
    assert_same(ad.read_zarr(tmp_path / "keys.zarr"), adata)


def test_csv_holds_every_key(tmp_path):
    adata = object_of_keys(NAMES)
    adata.obs.to_csv(tmp_path / "keys.csv")
    assert list(pd.read_csv(tmp_path / "keys.csv", index_col=0).columns) == list(adata.obs.columns)


def test_plain_names_are_their_own_keys():
    for name in ("case", "ü β-cell", "HIV+", "CD4 T (naive), 50 %", "T-cell=yes", "a:b"):
        assert _keys.key(name) == name
    assert _keys.key("HIV+/ART") == "HIV+%2FART"
    uns = {}
    _keys.remember(uns, ["case", "control"])
    assert uns == {}


@given(
    st.text(st.characters(exclude_categories=()), max_size=60),
    st.text(st.characters(exclude_categories=()), max_size=60),
)
def test_two_names_never_share_a_key_and_names_come_back(a, b):
    key = _keys.key(a)
    assert (key == _keys.key(b)) == (a == b) or "" in (a, b)
    if a and "~" not in key and key != "%5Findex":
        assert _keys.name_of(key) == a


def test_keys_of_attributions_hold_label_and_class():
    assert _keys.attribution("maestro", "smoker", "yes") == "maestro_attribution_smoker_yes"
    assert _keys.attribution("maestro", "diabetes", "yes") != _keys.attribution("maestro", "smoker", "yes")
    assert _keys.attribution("pascient", "age", "age") == "pascient_attribution_age"
    assert _keys.attribution("maestro", "disease/state", "HIV+/ART") == "maestro_attribution_disease%2Fstate_HIV+%2FART"


def test_nested_dictionaries_keep_their_shape():
    given = {"b": {"disease/state": "class", "age": {"x/y": 1}}, "a": [1]}
    assert _keys.nested(given) == {"a": [1], "b": {"age": {"x%2Fy": 1}, "disease%2Fstate": "class"}}
    assert list(_keys.nested(given)) == ["a", "b"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x", "@SUM(A1)", "\t=1", "\r=1", "a\x1b[31m", "two\nlines"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text):
    assert _keys.quoted(text) == f"'{text}"


def test_other_text_stays_as_it_is():
    for text in ("case", "a=b", "1+1", "HIV+", "x-y", "", "ü ☃", "'quoted'"):
        assert _keys.quoted(text) == text
