"""Files become one store, and the other commands take it."""

from __future__ import annotations

import anndata as ad
import numpy as np

import scset_tools as sst


def test_files_become_a_store_that_fit_takes(run, cohort, tmp_path):
    cells = ad.read_h5ad(cohort)
    names = cells.obs["sample"].astype(str)
    parts = []
    for i, own in enumerate((sorted(set(names))[:3], sorted(set(names))[3:])):
        parts.append(tmp_path / f"site{i}.h5ad")
        cells[names.isin(own).to_numpy()].copy().write_h5ad(parts[-1])
    store, out, plain = tmp_path / "cohort.zarr", tmp_path / "s.h5ad", tmp_path / "p.h5ad"
    ended = run("prepare", *parts, "-s", "sample", "-o", store)
    assert ended.code == 0, ended.err
    assert run("fit", "mean", store, "-s", "sample", "-o", out).code == 0
    assert run("fit", "mean", cohort, "-s", "sample", "-o", plain).code == 0
    expected = ad.read_h5ad(plain)
    np.testing.assert_allclose(ad.read_h5ad(out)[expected.obs_names].X, expected.X, rtol=1e-5, atol=1e-6)
    wide = tmp_path / "wide.zarr"
    assert run("prepare", *parts, "-s", "sample", "-o", wide, "--panel", "open").code == 0
    assert "panels" in sst.pp.read_store(wide).uns
    again = run("prepare", *parts, "-s", "sample", "-o", store)
    assert (again.code, "is there already" in again.err) == (5, True)


def test_what_cannot_be_is_told_in_one_line(run, cohort, tmp_path):
    store = tmp_path / "cohort.zarr"
    for arguments, code, words in (
        ((tmp_path / "no.h5ad", "-s", "sample"), 4, "There is no file"),
        ((cohort, "-s", "donors"), 3, "has no column 'donors'"),
        ((cohort, "-s", "sample", "--join", "left"), 3, "join"),
        ((cohort, cohort, "-s", "sample"), 3, "have the same name in several sources"),
    ):
        ended = run("prepare", *arguments, "-o", store)
        assert ended.code == code, ended.err
        assert words in ended.err
        assert "Traceback" not in ended.err
