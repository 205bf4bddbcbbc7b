"""MuData as they come: what says the same gives the same vectors, and what cannot be read is told before training."""

from __future__ import annotations

import logging

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from test_setup_joint import BOTH, LACKS, MODELS, cohort, rebuilt, same

import scset_tools as sst

pytestmark = [
    pytest.mark.filterwarnings("ignore:Cannot join columns with the same name:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*not unique:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*is not trained"),
]


def untrained(mdata, key="sample", cls=sst.MAESTRO, modalities=BOTH, **how):
    """Weights and moments that depend on the cells alone, without training."""
    cls.setup_mudata(mdata, key, modalities=modalities, **how)
    return cls(mdata, random_state=0, **MODELS[cls.__name__.lower()][1])


def vectors(mdata, **how):
    return untrained(mdata, **how).get_sample_representation()


@pytest.fixture(scope="module")
def plain():
    return vectors(cohort())


def with_samples_of(convert):
    """Each modality says by itself which sample a cell is of."""
    mdata = cohort()
    number = mdata.obs["sample"].astype(str).str[1:].astype(int)
    parts = {}
    for name, part in mdata.mod.items():
        part.obs["sample"] = convert[name](number.reindex(part.obs_names))
        parts[name] = part.copy()
    return md.MuData(parts)


@pytest.mark.parametrize(
    ("rna", "adt"),
    [(int, str), (float, int), (str, "category"), (int, "category")],
    ids=["int and text", "float and int", "text and category", "int and category"],
)
def test_a_sample_is_the_same_as_a_number_and_as_text(rna, adt, plain):
    found = vectors(with_samples_of({"rna": lambda n: n.astype(rna), "adt": lambda n: n.astype(adt)}))
    np.testing.assert_array_equal(found, plain)


def test_zeros_before_a_number_are_another_sample():
    mdata = with_samples_of({"rna": lambda n: n, "adt": lambda n: n.map("{:02d}".format)})
    with pytest.raises(ValueError, match=r"mdata\['adt'\].obs\['sample'\] puts 216 cells into another sample than"):
        vectors(mdata)


def test_the_name_of_a_column_in_one_modality_serves(plain):
    mdata = with_samples_of({"rna": lambda n: n, "adt": lambda n: n})
    np.testing.assert_array_equal(vectors(mdata, key="rna:sample"), plain)
    del mdata["adt"].obs["sample"]
    np.testing.assert_array_equal(vectors(mdata), plain)


@pytest.mark.parametrize("change", ["unused", "csc", "csr_array", "frame", "sparse obsm", "backed", "backed sparse"])
def test_how_values_and_names_are_kept_does_not_matter(change, plain, tmp_path):
    mdata, how = cohort(), {}
    if change == "unused":
        mdata.obs["sample"] = mdata.obs["sample"].cat.add_categories(["a00", "zz"])
    elif change in ("csc", "csr_array"):
        as_sparse = sp.csc_matrix if change == "csc" else sp.csr_array
        mdata = rebuilt(mdata, lambda _, p: ad.AnnData(as_sparse(p.X), obs=p.obs, var=p.var))
    elif change in ("frame", "sparse obsm"):
        how["use_rep"] = "rep"
        for part in mdata.mod.values():
            frame = pd.DataFrame(part.X, index=part.obs_names, columns=part.var_names)
            part.obsm["rep"] = frame if change == "frame" else sp.csr_matrix(part.X)
    else:
        if change == "backed sparse":
            for part in mdata.mod.values():
                part.X = sp.csr_matrix(part.X)
        mdata.write_h5mu(tmp_path / "c.h5mu")
        mdata = md.read_h5mu(tmp_path / "c.h5mu", backed="r")
    found = vectors(mdata, **how)
    if change == "sparse obsm":  # its columns have no names, and an open panel knows features by theirs
        assert found.shape == plain.shape
        mdata2 = cohort()
        for part in mdata2.mod.values():
            part.obsm["rep"] = part.X
        np.testing.assert_array_equal(found, vectors(mdata2, use_rep="rep"))
    else:
        np.testing.assert_array_equal(found, plain)


def test_counts_of_any_type_are_the_same():
    def counts(dtype):
        return rebuilt(cohort(), lambda _, p: ad.AnnData(np.round(p.X * 9).astype(dtype), obs=p.obs, var=p.var))

    np.testing.assert_array_equal(vectors(counts(np.uint16)), vectors(counts(np.float64)))


@pytest.mark.parametrize("names", [("a/b", "c d"), ("RNA", "rna")], ids=str)
def test_names_of_modalities(names):
    old = cohort(lacks=LACKS)
    mdata = md.MuData({names[0]: old["rna"].copy(), names[1]: old["adt"].copy()})
    mdata.obs = old.obs.loc[mdata.obs_names].copy()
    samples = untrained(mdata, modalities=list(names)).to_sample_adata()
    by = [key for key in samples.obsm if key.startswith("X_maestro_")]
    assert [int(np.isfinite(samples.obsm[key]).all(axis=1).sum()) for key in by] == [7, 7]


def odd(change):
    """A MuData, and how it is set up."""
    mdata, how = cohort(), {}
    if change == "no X":
        mdata = rebuilt(mdata, lambda n, p: ad.AnnData(obs=p.obs, var=p.var, obsm={"r": p.X}) if n == "adt" else p)
    elif change == "no features":
        mdata = rebuilt(mdata, lambda n, p: p[:, :0].copy() if n == "adt" else p)
    elif change == "no cells":
        mdata = rebuilt(mdata, lambda n, p: p[:0].copy() if n == "adt" else p)
    elif change == "of all":
        mdata.obsm["X_wnn"] = np.ones((mdata.n_obs, 3), dtype=np.float32)
        how["use_rep"] = {"rna": "X_wnn"}
    elif change == "cells twice":
        names = mdata["adt"].obs_names.to_numpy().copy()
        names[1] = names[0]
        mdata["adt"].obs_names = names
    elif change == "features twice":
        mdata["adt"].var_names = ["CD4", "CD8", "CD4"]
    elif change == "out of date":
        further = mdata["rna"][:4].copy()
        further.obs_names = [f"x{i}" for i in range(4)]
        mdata.mod["rna"] = ad.concat([mdata["rna"], further])
    elif change in ("plus", "at"):
        name = "CD4+" if change == "plus" else "x@rna"
        new = md.MuData({name: mdata["rna"].copy(), "adt": mdata["adt"].copy()})
        new.obs = mdata.obs.loc[new.obs_names].copy()
        mdata, how = new, {"modalities": [name, "adt"]}
    elif change == "named twice":
        how["modalities"] = ["rna", "adt", "rna"]
    elif change == "view":
        mdata = mdata[:100]
    elif change == "no sample":
        mdata.obs["sample"] = mdata.obs["sample"].astype(object).where(np.arange(mdata.n_obs) != 3, np.nan)
    elif change == "infinite":
        mdata["adt"].X[3, 1] = np.inf
    elif change == "part":
        mdata["adt"].X[3, 1] = np.nan
    return mdata, how


@pytest.mark.parametrize("cls", [sst.MAESTRO, sst.ScSet, sst.PaSCient], ids=lambda c: c.__name__)
@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ("no X", ValueError, r"The modality 'adt' has no X. Name what to read of it: use_rep=\{'adt': ...\}, keys \['r'\]"),
        ("no features", ValueError, r"The modality 'adt' has no features \(shape \(216, 0\)\): leave it out"),
        ("no cells", ValueError, r"The modality 'adt' has no cells: leave it out"),
        ("of all", KeyError, r"'X_wnn' is in mdata.obsm, of all cells, and not in mdata\['rna'\].obsm"),
        ("cells twice", ValueError, r"1 names of cells are in the modality 'adt' more than once.*obs_names_make_unique"),
        ("features twice", ValueError, r"1 features of the modality 'adt' are there twice, first: \['CD4'\]"),
        ("out of date", ValueError, r"mdata.obs does not know 4 of 244 cells of mdata\['rna'\], .*mdata.update\(\)"),
        ("plus", ValueError, r"name of the modality 'CD4\+' is empty or holds one of .*rename it"),
        ("at", ValueError, r"name of the modality 'x@rna' is empty or holds one of"),
        ("named twice", ValueError, r"was given the modality 'rna' twice"),
        ("view", ValueError, r"was given a view of a MuData. Copy it first"),
        ("no sample", ValueError, r"adata.obs\['sample'\] is missing for 1 of 240 cells"),
        ("infinite", ValueError, r"not finite .*feature 'CD8@adt'|216 of|24 of 240 cells lack one"),
        ("part", ValueError, r"marker 'CD8@adt' in 1 of 27 cells of sample|24 of 240 cells lack one"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_before_training(cls, change, error, match):
    mdata, how = odd(change)
    with pytest.raises(error, match=match):
        cls.setup_mudata(mdata, "sample", **{"modalities": BOTH, "labels_key": "condition", **how})


def test_vectors_by_modality_are_made_without_a_word_of_scvi_tools(caplog):
    model = untrained(cohort(lacks=LACKS))
    scvi = logging.getLogger("scvi")
    scvi.addHandler(caplog.handler)
    caplog.clear()
    try:
        samples = model.to_sample_adata()
    finally:
        scvi.removeHandler(caplog.handler)
    assert "X_maestro_rna" in samples.obsm
    assert not [record for record in caplog.records if record.name.startswith("scvi")]


def test_backed_files_are_embedded_and_joined(plain, tmp_path):
    model, mdata = untrained(cohort()), cohort(n_samples=3, seed=4, prefix="new")
    mdata.write_h5mu(tmp_path / "new.h5mu")
    opened = md.read_h5mu(tmp_path / "new.h5mu", backed="r")
    same(model.get_sample_representation(opened), model.get_sample_representation(mdata))
    joined = sst.pp.join_modalities(opened, "sample", join="outer")
    np.testing.assert_array_equal(joined.X, sst.pp.join_modalities(mdata, "sample", join="outer").X)


def test_what_reads_an_anndata_says_how_to_make_one(tmp_path):
    mdata = cohort()
    mdata.write_h5mu(tmp_path / "c.h5mu")
    to, store = sst.pp.write_store, {"sample_key": "sample"}
    for source in (mdata, [mdata]):
        with pytest.raises(
            TypeError, match=r"pp.write_store takes an AnnData, but was given a MuData .*join_modalities"
        ):
            to(source, tmp_path / "c.zarr", **store)
    with pytest.raises(ValueError, match=r"c.h5mu holds a MuData, and a store .*pp.join_modalities"):
        to(tmp_path / "c.h5mu", tmp_path / "c.zarr", **store)
    assert not (tmp_path / "c.zarr").exists()
    with pytest.warns(UserWarning, match="24 of 240 cells are left out"):
        joined = sst.pp.join_modalities(mdata, "sample")
    to(joined, tmp_path / "c.zarr", **store)
    assert sst.pp.read_store(tmp_path / "c.zarr").n_obs == 216
    for call in (
        lambda: sst.model.trust_attributions(sst.PaSCient, mdata, "condition", sample_key="sample"),
        lambda: sst.model.ModelProfile(sst.MAESTRO, sample_key="sample").fit(mdata),
        lambda: sst.tl.probe(mdata, "condition"),
        lambda: sst.pp.concat_panels([mdata, mdata], sample_key="sample"),
        lambda: sst.pp.standardize_markers(mdata),
        lambda: sst.pp.filter_samples(mdata, "sample"),
    ):
        with pytest.raises(
            TypeError, match=r"takes an AnnData, but was given a MuData with modalities \['rna', 'adt'\]"
        ):
            call()
