"""An h5mu file in the place of an h5ad file."""

from __future__ import annotations

import re

import anndata as ad
import mudata as md
import numpy as np
import pytest

import scset_tools as sst

SMALL = ("--build", "n_hidden=16", "--build", "n_latent=4", "--build", "n_inducing=4", "--build", "n_heads=2")
FIT = ("-s", "sample", "--max-epochs", 1, *SMALL)
BOTH = ("--modality", "rna", "--modality", "adt")


@pytest.fixture(scope="module")
def cells():
    """Paired cells whose columns stand in the obs of the MuData."""
    whole = sst.datasets.perturbation_cohort(n_samples=8, n_cells=30)
    obs = whole.obs.copy()
    whole.obs = obs[[]].copy()
    mdata = md.MuData({"rna": whole[:, :8].copy(), "adt": whole[:, 8:].copy()})
    for part in mdata.mod.values():
        part.obsm["X_pca"] = np.asarray(part.X)[:, :3].copy()
    mdata.obs = obs
    return mdata


@pytest.fixture(scope="module")
def file(cells, tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cells.h5mu"
    cells.write_h5mu(path)
    return path


def test_one_modality_and_several_are_fitted_and_embedded(run, cells, file, tmp_path):
    for name, options, modalities in (
        ("one", BOTH[:2], ["rna"]),
        ("both", ("--modalities", "rna,adt"), ["rna", "adt"]),
    ):
        out, model = tmp_path / f"{name}.h5ad", tmp_path / name
        fitted = run("fit", "maestro", file, *FIT, *options, "-o", out, "--save-model", model)
        assert fitted.code == 0, fitted.err
        embedded = run("embed", model, file, "-o", tmp_path / f"{name}_again.h5ad")
        assert embedded.code == 0, embedded.err
        a, b = ad.read_h5ad(out), ad.read_h5ad(tmp_path / f"{name}_again.h5ad")
        np.testing.assert_allclose(a.X, b.X, atol=1e-6)
        assert "subtype" in a.obs
        by = sorted(key for key in a.obsm if key.startswith("X_maestro_"))
        assert by == ([f"X_maestro_{m}" for m in sorted(modalities)] if len(modalities) > 1 else [])


def test_profiles_read_them_too(run, cells, file, tmp_path):
    out = tmp_path / "mean.h5ad"
    ended = run("fit", "mean", file, "-s", "sample", *BOTH, "-o", out, "--use-rep", "rna=X_pca")
    assert ended.code == 0, ended.err
    joined = sst.pp.join_modalities(cells, "sample", use_rep={"rna": "X_pca"})
    np.testing.assert_allclose(ad.read_h5ad(out).X, sst.profiles.mean(joined, sample_key="sample").X, rtol=1e-5)
    ended = run(
        "fit", "mean", file, "-s", "sample", "--modality", "adt", "-o", out, "--use-rep", "X_pca", "--overwrite"
    )
    assert ended.code == 0, ended.err
    want = sst.profiles.mean(cells, sample_key="sample", modalities="adt", use_rep="X_pca")
    np.testing.assert_allclose(ad.read_h5ad(out).X, want.X, rtol=1e-5)


def test_a_benchmark_of_both(run, cells, file, tmp_path):
    how = ("-m", "mean", "-m", "maestro", "--cv", 2, "--n-repeats", 1, "--no-tune", "--max-epochs", 1, *SMALL)
    ended = run("benchmark", file, "subtype", "-s", "sample", *BOTH, *how, "-o", tmp_path / "t.csv")
    assert ended.code == 0, ended.err
    assert "maestro" in ended.out
    result = sst.tl.benchmark(
        cells, {"mean": sst.profiles.Mean(sample_key="sample")}, "subtype",
        sample_key="sample", modalities=["rna", "adt"], cv=2, n_repeats=1, tune=False, progress=False,
    )  # fmt: skip
    first = next(line for line in ended.out.splitlines() if " mean " in line and "logistic" in line)
    assert f"{result.summary()['mean'].iloc[0]:.3f}" in first


def test_what_is_wrong_is_said(run, cells, file, cohort, tmp_path):
    out = tmp_path / "x.h5ad"
    ended = run("fit", "mean", file, "-s", "sample", "-o", out)
    assert ended.code == 2
    assert "holds the modalities ['rna', 'adt']: name one" in ended.err
    assert "h5ad" in ended.err
    ended = run("fit", "mean", file, "-s", "sample", "-o", out, "--modality", "atac")
    assert ended.code == 2
    assert "has no ['atac']. Modalities: ['rna', 'adt']" in ended.err
    ended = run("fit", "mean", cohort, "-s", "sample", "-o", out, "--modality", "rna")
    assert ended.code == 2
    assert "is no h5mu file" in ended.err
    ended = run("benchmark", file, "subtype", *BOTH)
    assert ended.code == 2
    assert "--sample-key" in ended.err
    ended = run("fit", "mean", file, "-s", "sample", "-o", out, "--modality", "rna", "--backed")
    assert ended.code == 2
    ended = run("probe", file, "subtype")
    assert "is an h5mu file: probe takes the vectors" in ended.err
    assert not out.exists()
    with pytest.raises(ValueError, match=r"profiles.mean was given a MuData of \['rna', 'adt'\] and no modalities"):
        sst.profiles.mean(cells, sample_key="sample")
    with pytest.raises(ValueError, match=r"tl.benchmark was given modalities='rna', which are those of a MuData"):
        sst.tl.benchmark(cells["rna"], ["X"], "subtype", modalities="rna")


def test_a_report_of_both(run, cells, file, tmp_path):
    how = ("-s", "sample", "--label-key", "subtype", "-m", "mean", "--cv", 2, "--use-rep", "rna=X_pca")
    out = tmp_path / "both.html"
    ended = run("report", file, *how, *BOTH, "-o", out)
    assert ended.code == 0, ended.err
    same = tmp_path / "same.html"
    profiles = {"mean": sst.profiles.Mean(sample_key="sample")}
    asked = {"sample_key": "sample", "label_key": "subtype", "cv": 2, "models": (), "progress": False}
    sst.report(cells, same, modalities=["rna", "adt"], use_rep={"rna": "X_pca"}, profiles=profiles, **asked)
    joined = sst.pp.join_modalities(cells, "sample", use_rep={"rna": "X_pca"})
    for path in (out, same):
        found = re.sub(r"<[^>]+>", " ", path.read_text())
        assert re.search(rf"\b{joined.n_vars}\s+features \(X\)", found)
    with pytest.raises(ValueError, match=r"report was given a MuData of \['rna', 'adt'\] and no modalities"):
        sst.report(cells, tmp_path / "x.html", **asked)
    with pytest.raises(TypeError, match=r"report was given use_rep=\{'rna': 'X_pca'\}, a name for each modality"):
        sst.report(joined, tmp_path / "x.html", use_rep={"rna": "X_pca"}, **asked)
    ended = run("report", file, *how[:-2], "-o", tmp_path / "x.html")
    assert ended.code == 2
    assert "name one, or several to be joined, by --modality" in ended.err
