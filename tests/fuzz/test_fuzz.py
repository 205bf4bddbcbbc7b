"""Random AnnData against a plain copy of the same content: the same numbers, or an error that names the object.

A cohort is drawn twice: plainly (dense float32, text, nothing else) and oddly: any storage and dtype, ids and labels of any type,
names of any printable characters, columns that nobody asked for, rows in another order, through a file or not and, in some, a
fault. What is computed of a sound one must be what is computed of the plain one, to 1e-5, and come back from an h5ad file; a fault
must raise. ``make fuzz`` runs as many as asked for.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from _drawn import Cohort, cohorts
from _dress import odd, plain
from hypothesis import HealthCheck, given, settings

import scset_tools as sst

N_EXAMPLES = int(os.environ.get("SCSET_TOOLS_FUZZ_EXAMPLES", "40"))
TOLERANCE = 1e-5

MODELS = {
    "MAESTRO": (
        sst.MAESTRO,
        {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_layers": 1, "n_heads": 2, "n_cells": 4},
    ),
    "ScSet": (sst.ScSet, {"n_hidden": 8, "n_latent": 4, "n_cells": 4, "n_heads": 2}),
    "PaSCient": (sst.PaSCient, {"n_hidden": 8, "n_latent": 4}),
    "SelfGuidedMAE": (
        sst.SelfGuidedMAE,
        {
            "values": "normalized",
            "n_hidden": 4,
            "n_layers": 1,
            "n_heads": 2,
            "n_latents": 2,
            "n_latent_hidden": 4,
            "n_bins": 4,
        },
    ),
}
PROFILES = {
    "Mean": {},
    "MeanPerType": {"cell_type_key": "type"},
    "Fractions": {"cell_type_key": "type"},
    "FractionsAndMeans": {"cell_type_key": "type"},
    "KMeansFractions": {"n_clusters": 2},
    "KMeansMeans": {"n_clusters": 2},
    "KernelMean": {},
    "MixtureFractions": {"n_components": 2},
    "OTKE": {"n_points": 2, "n_anchors": 3, "n_steps": 2},
    "NumberOfCells": {},
    "RandomVector": {},
    "SequencingDepth": {},
}
BLIND = ("Fractions", "NumberOfCells", "RandomVector")
"""Profiles that read no features."""
TASKS = [*(("embed", m) for m in MODELS), *(("query", m) for m in MODELS), *(("profile", p) for p in PROFILES)]
TASKS += [
    *[("probe", "Mean")] * 4,
    ("probe", "NumberOfCells"),
    *(("train", m) for m in MODELS),
    ("attribute", "MAESTRO"),
]
QUIET = {"enable_progress_bar": False, "enable_model_summary": False}


def compute(c: Cohort, make: Any, folder: Path, *, is_plain: bool) -> pd.DataFrame:
    """The result of the task, by sample."""
    task, what = c.odd["task"]
    place = "X" if is_plain else c.odd["place"]
    where = {"X": {}, "layer": {"layer": "x"}}.get(place, {"use_rep": "x"})
    if task in ("profile", "probe"):
        arguments = {"sample_key": c.keys["sample"], **PROFILES[what], **({} if what in BLIND else where)}
        if "cell_type_key" in arguments:
            arguments["cell_type_key"] = c.keys["type"]
        cells = make()
        if not is_plain and c.odd["is_view"] and not cells.isbacked and c.odd["file"] != "lazy":
            with contextlib.suppress(AttributeError):  # anndata: two columns of one name
                cells = cells[np.arange(cells.n_obs)]
        samples = getattr(sst.profiles, what)(**arguments).fit_transform(cells)
        require_sound(c, samples, folder)
        return samples.to_df() if task == "profile" else probed(c, samples)
    cls, arguments = MODELS[what]
    labels = {"labels_key": c.keys["label"]} if what == "PaSCient" or task in ("train", "attribute") else {}
    # set up on the plain copy, in the same place, so that the odd one is new to the model
    is_new = task == "query" and not is_plain
    first = plain(c, "obsm" if c.odd["fault"] == "cube" else c.odd["place"]) if is_new else make()
    cls.setup_anndata(first, c.keys["sample"], **labels, **where)
    model = cls(first, random_state=0, **arguments)
    if task == "train":
        model.train(max_epochs=1, batch_size=4, train_size=1.0, seed=0, accelerator="cpu", **QUIET)
    if task == "attribute":
        return model.get_attributions(c.keys["label"], n_cells=3, n_steps=2).cells.iloc[:, [1]].set_axis(["x"], axis=1)
    samples = model.to_sample_adata(make() if task == "query" else None)
    require_sound(c, samples, folder)
    return samples.to_df()


def probed(c: Cohort, samples: ad.AnnData) -> pd.DataFrame:
    """Folds of a probe of the label."""
    target = {"levels": "ordinal", "number": "continuous"}.get(c.odd["family"], "class")
    probe = "ridge" if target == "continuous" else "logistic"
    how = {"probe": probe, "cv": 2, "n_repeats": 1, "tune": False, "target": target}
    result = sst.tl.probe(samples, c.keys["label"], **how)
    return result.folds.select_dtypes("number").fillna(-1.0)


def require_sound(c: Cohort, samples: ad.AnnData, folder: Path) -> None:
    """Samples have their sizes, and come back from a file as they are."""
    sizes = dict(zip(c.ids, np.bincount(c.sample).tolist(), strict=True))
    assert samples.obs["n_cells"].tolist() == [sizes[name] for name in samples.obs_names]
    samples.write_h5ad(folder / "samples.h5ad")
    again = ad.read_h5ad(folder / "samples.h5ad")
    np.testing.assert_array_equal(again.X, samples.X)
    assert list(again.obs_names) == list(samples.obs_names)
    assert set(again.obs) == set(samples.obs)
    assert list(again.var_names) == list(samples.var_names)
    for name in again.obs:
        assert again.obs[name].astype(str).tolist() == samples.obs[name].astype(str).tolist(), name


OBJECT = r"of (\d+) samples have fewer|adata\.(X|obs|var_names|layers|obsm)|samples\.obs|obs\["
OF_FEATURES = {"nan", "inf", "-inf", "beyond", "hidden", "complex", "text_column", "cube"}
OF_LABELS = {"varies", "list_labels", "infinite_label", "other_class"}


def is_looked_at(c: Cohort) -> bool:
    """Whether the task reads what is wrong."""
    fault, (task, what) = c.odd["fault"], c.odd["task"]
    if fault in OF_FEATURES:
        return what not in BLIND
    if fault in OF_LABELS:
        reads_labels = task in ("train", "attribute", "probe") or what == "PaSCient"
        if fault == "other_class":  # a class like others to whoever learns them
            is_number = task == "probe" and c.odd["family"] in ("number", "levels")
            return is_number or (task == "query" and what == "PaSCient")
        if (
            fault == "infinite_label" and task == "probe"
        ):  # among texts, samples hold it as a text, which a warning names
            return c.odd["family"] in ("number", "levels")
        return reads_labels
    return fault != "no_type" or "cell_type_key" in PROFILES.get(what, {})


def check(c: Cohort) -> None:
    """Compute both, and compare."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as name:
        warnings.simplefilter("ignore")
        folder = Path(name)
        try:
            want = compute(c, lambda: plain(c), folder, is_plain=True)
        except ValueError as error:  # a class with one member, say: then so must the odd one
            want = error
        try:
            made = odd(c, folder)
        except (ValueError, TypeError, NotImplementedError):  # anndata itself refuses
            return
        if made.shape[0] != len(c.x):
            return
        if (c.odd["fault"] is not None and is_looked_at(c)) or isinstance(want, ValueError):
            with pytest.raises((ValueError, TypeError, KeyError), match=OBJECT):
                compute(c, lambda: made, folder, is_plain=False)
            return
        if c.odd["fault"] in OF_LABELS:  # not read, but what the samples say differs
            try:
                compute(c, lambda: made, folder, is_plain=False)
            except ValueError as error:  # an infinite number among classes is refused, its text is one of them
                if c.odd["fault"] != "infinite_label" or not re.search(OBJECT, str(error)):
                    raise
            return
        got = compute(c, lambda: made, folder, is_plain=False)
    assert sorted(map(str, got.index)) == sorted(map(str, want.index))
    scale = max(1.0, float(np.abs(want.to_numpy()).max()))
    if c.odd["task"][0] == "attribute":  # through a probe of standardised vectors, which without training hardly vary
        scale *= 100
    np.testing.assert_allclose(got.loc[want.index].to_numpy(), want.to_numpy(), atol=TOLERANCE * scale, rtol=0)


@settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    derandomize="SCSET_TOOLS_FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(cohorts(TASKS))
def test_odd_data_give_the_numbers_of_plain_data_or_an_error(cohort: Cohort) -> None:
    check(cohort)
