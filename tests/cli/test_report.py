"""`report`: the page from the command line, and what ends it."""

from __future__ import annotations

import json

import anndata as ad
import pytest

import scset_tools as sst


def test_report_is_the_library(run, cohort, tmp_path):
    out, log = tmp_path / "r.html", tmp_path / "log"
    keys = ["-s", "sample", "--label-key", "subtype", "-m", "mean", "-m", "number_of_cells", "--cv", 3]
    ended = run("report", cohort, *keys, "-o", out, "--log", log)
    assert ended.code == 0, ended.err
    assert ended.out == ""
    assert "[1/" in ended.err
    profiles = {
        "mean": sst.profiles.Mean(sample_key="sample"),
        "number_of_cells": sst.profiles.NumberOfCells(sample_key="sample"),
    }
    cells = ad.read_h5ad(cohort)
    wanted = sst.report(cells, tmp_path / "w.html", sample_key="sample", label_key="subtype", models=(), profiles=profiles, cv=3, progress=False)  # fmt: skip
    assert out.read_text() == wanted.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "r.html", "w.html"]
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert events[-1]["exit_code"] == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--label-key", "disease"], 3, "'disease' is not a column of adata.obs"),
        (["-m", "scvi"], 2, "'scvi' is not a method"),
        (["-m", "pascient"], 2, "name their column with --label-key"),
        (["-m", "fractions"], 2, "fractions needs --cell-type-key"),
        (["--accelerator", "tpu"], 2, "--accelerator takes cpu, gpu or auto"),
    ],
)
def test_what_ends_a_report(options, code, message, run, cohort, tmp_path):
    ended = run("report", cohort, "-s", "sample", "-o", tmp_path / "r.html", *options)
    assert ended.code == code, ended.err
    assert message in ended.err
    assert list(tmp_path.iterdir()) == []


def test_times_take_two_columns(run, cohort, tmp_path):
    cells = ad.read_h5ad(cohort)
    place = cells.obs["sample"].astype("category").cat.codes.to_numpy()
    cells.obs["days"], cells.obs["died"] = 10.0 + place, (place % 4 > 0).astype(int)
    cells.write_h5ad(tmp_path / "times.h5ad")
    keys = ("-s", "sample", "-m", "mean", "--cv", "2", "--event-key", "died")
    ended = run("report", tmp_path / "times.h5ad", "--label-key", "days", *keys, "-o", tmp_path / "r.html")
    assert ended.code == 0, ended.err
    assert "concordance" in (tmp_path / "r.html").read_text()
    ended = run("benchmark", tmp_path / "times.h5ad", "days", "--probe", "cox", "--n-repeats", "1", *keys)
    assert ended.code == 0, ended.err
    assert "concordance" in ended.out
    ended = run("report", tmp_path / "times.h5ad", *keys, "-o", tmp_path / "r2.html")
    assert ended.code == 3
    assert "--label-key" in ended.err


def test_outputs_that_cannot_be_written_are_found_at_the_start(run, cohort, tmp_path):
    there = tmp_path / "there.html"
    there.write_text("mine")
    for out, message in ((there, "is there already"), (tmp_path / "no" / "r.html", "cannot be written")):
        ended = run("report", cohort, "-s", "sample", "-m", "mean", "-o", out)
        assert ended.code == 5
        assert message in ended.err
        assert "reading" not in ended.err
    assert there.read_text() == "mine"
    assert run("report", cohort, "-s", "sample", "-m", "mean", "-o", there, "--overwrite").code == 0
    assert there.read_text().startswith("<!DOCTYPE html>")
