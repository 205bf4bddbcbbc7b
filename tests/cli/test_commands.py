"""Commands give what the library gives, and end with the code and the message that the help promises."""

from __future__ import annotations

import json
import os
import signal

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from test_contract import MODELS

import scset_tools as sst
from scset_tools.cli import _commands, _methods
from scset_tools.cli._exit import CommandError

# small sizes of each model: the table of the contract, in which a new model has its line
SMALL = {entry[0].__name__.lower(): entry[1] for entry in MODELS.values()}
OPTIONS = ["--max-epochs", "1", "--accelerator", "cpu"]


def sizes(name):
    return [part for key, value in SMALL[name].items() for part in ("--build", f"{key}={json.dumps(value)}")]


def test_every_model_and_profile_has_a_name():
    assert set(_methods.models()) == set(SMALL)
    functions = {name for name in sst.profiles.__all__ if name.islower()}
    assert set(_methods.PROFILES) == functions
    for name, cls in _methods.PROFILES.items():
        assert getattr(sst.profiles, cls).name == name


@pytest.mark.parametrize("name", SMALL)
def test_fit_then_embed(name, run, cohort, tmp_path):
    out, again, folder = tmp_path / "s.h5ad", tmp_path / "e.h5ad", tmp_path / "model"
    keys = ["-s", "sample", "--labels-key", "subtype", "--layer", "positive"]
    ended = run("fit", name, cohort, *keys, "-o", out, "--save-model", folder, *OPTIONS, *sizes(name))
    assert ended.code == 0, ended.err
    assert "training" in ended.err
    assert ended.out == ""
    samples = ad.read_h5ad(out)
    assert list(samples.obs_names) == [f"s{i}" for i in range(8)] or samples.n_obs == 8
    assert samples.uns[name]["setup_args"]["sample_key"] == "sample"
    assert run("embed", folder, cohort, "-o", again).code == 0
    np.testing.assert_allclose(ad.read_h5ad(again).X, samples.X, rtol=1e-5, atol=1e-6)
    assert sorted(os.listdir(tmp_path)) == ["e.h5ad", "model", "s.h5ad"]


def test_fit_is_the_library_with_the_same_seed(run, cohort, tmp_path):
    cells = ad.read_h5ad(cohort)
    sst.MAESTRO.setup_anndata(cells, "sample", layer="positive")
    model = sst.MAESTRO(cells, random_state=3, **SMALL["maestro"])
    model.train(2, seed=3, accelerator="cpu", batch_size=4, n_cells=25, enable_progress_bar=False)
    options = ["--max-epochs", 2, "--accelerator", "cpu", "--batch-size", 4, "--train", "n_cells=25", "--seed", 3]
    out = tmp_path / "s.h5ad"
    ended = run("fit", "maestro", cohort, "-s", "sample", "-o", out, "--layer", "positive", *options, *sizes("maestro"))
    assert ended.code == 0, ended.err
    np.testing.assert_array_equal(ad.read_h5ad(out).X, model.to_sample_adata().X)


@pytest.mark.parametrize(
    ("name", "options", "class_"),
    [
        ("mean", ["--layer", "positive"], lambda: sst.profiles.Mean(sample_key="sample", layer="positive")),
        (
            "fractions",
            ["--cell-type-key", "cell_type"],
            lambda: sst.profiles.Fractions(sample_key="sample", cell_type_key="cell_type"),
        ),
        ("random_vector", ["--seed", "5"], lambda: sst.profiles.RandomVector(sample_key="sample", rng=5)),
    ],
)
def test_fit_a_profile(run, cohort, tmp_path, name, options, class_):
    out = tmp_path / "s.h5ad"
    assert run("fit", name, cohort, "-s", "sample", "-o", out, *options).code == 0
    np.testing.assert_array_equal(ad.read_h5ad(out).X, class_().fit_transform(ad.read_h5ad(cohort)).X)


def test_probe_is_that_of_the_library(run, samples, tmp_path):
    files = {name: tmp_path / f"{name}.csv" for name in ("summary", "folds", "predictions")}
    options = ["--cv", 3, "--n-repeats", 2, "--no-tune", "--n-permutations", 3, "--groups-key", "donor"]
    outputs = ["-o", files["summary"], "--folds", files["folds"], "--predictions", files["predictions"]]
    ended = run("probe", samples, "subtype", *options, *outputs)
    assert ended.code == 0, ended.err
    want = sst.tl.probe(
        ad.read_h5ad(samples), "subtype", cv=3, n_repeats=2, tune=False, n_permutations=3, groups_key="donor"
    )
    got = pd.read_csv(files["summary"]).set_index("metric")
    pd.testing.assert_frame_equal(got.drop(columns="p_value"), want.summary(), check_dtype=False)
    assert got.loc[want.metric, "p_value"] == want.p_value
    assert len(pd.read_csv(files["folds"])) == 6
    assert len(pd.read_csv(files["predictions"])) == 16
    assert "balanced_accuracy" in ended.out


@pytest.mark.parametrize(
    ("label", "options", "taken"), [("age", [], "ridge"), ("days", ["--event-key", "died"], "cox")]
)
def test_the_default_probe_follows_the_label(run, samples, tmp_path, label, options, taken):
    made = ad.read_h5ad(samples)
    made.obs["age"], made.obs["days"] = range(made.n_obs), range(1, made.n_obs + 1)
    made.obs["died"] = [i % 4 > 0 for i in range(made.n_obs)]
    made.write_h5ad(file := tmp_path / "labelled.h5ad")
    quick = ["--cv", 2, "--n-repeats", 1, "--no-tune", *options]
    ended = run("probe", file, label, *quick)
    assert (ended.code, repr(taken) in ended.err) == (0, True), ended.err
    ended = run("benchmark", file, label, "-m", "X", *quick)
    assert (ended.code, taken in ended.out) == (0, True), ended.err


def test_benchmark_of_cells_and_of_vectors(run, cohort, samples, tmp_path):
    options = ["--cv", 3, "--n-repeats", 1, "--no-tune"]
    out, figure = tmp_path / "t.json", tmp_path / "bars.png"
    methods = [part for name in ("mean", "random_vector", "maestro-untrained") for part in ("-m", name)]
    ended = run(
        "benchmark",
        cohort,
        "subtype",
        "-s",
        "sample",
        *methods,
        *options,
        *sizes("maestro"),
        "-o",
        out,
        "--figure",
        figure,
    )
    assert ended.code == 0, ended.err
    table = pd.read_json(out)
    want = sst.tl.benchmark(
        ad.read_h5ad(cohort),
        {"mean": sst.profiles.Mean(sample_key="sample"), "random": sst.profiles.RandomVector(sample_key="sample")},
        "subtype",
        sample_key="sample",
        cv=3,
        n_repeats=1,
        tune=False,
        progress=False,
    ).summary()
    for ours, theirs in (("mean", "mean"), ("random_vector", "random")):
        score = table.loc[table["representation"] == ours, "mean"].item()
        assert score == pytest.approx(want.loc[want["representation"] == theirs, "mean"].item())
    assert set(table["representation"]) == {"mean", "random_vector", "maestro-untrained"}
    assert figure.read_bytes()[:4] == b"\x89PNG"
    of_vectors = run("benchmark", samples, "subtype", "-m", "X", *options, "-o", tmp_path / "v.tsv")
    assert of_vectors.code == 0, of_vectors.err
    assert pd.read_csv(tmp_path / "v.tsv", sep="\t")["representation"].tolist() == ["X"]


def test_benchmark_without_methods_compares_the_usual_ones(run, cohort, samples):
    options = ["--cv", 3, "--n-repeats", 1, "--no-tune"]
    of_cells = run("benchmark", cohort, "subtype", "-s", "sample", *options)
    assert of_cells.code == 0, of_cells.err
    assert all(name in of_cells.out for name in _methods.BENCHMARKED)
    assert "comparing mean, kmeans_fractions, number_of_cells" in of_cells.err
    of_vectors = run("benchmark", samples, "subtype", *options)
    assert of_vectors.code == 0, of_vectors.err
    assert "comparing X, X_mean" in of_vectors.err


def test_benchmark_gives_cell_types_to_models_that_read_them(monkeypatch):
    setup = {"cell_type_key": "cell_type", "labels_key": "subtype", "layer": None}
    how = {"setup": setup, "build": {}, "train": {}, "seed": 0}
    assert _commands._entry("pascient", "sample", **how).setup == {
        "cell_type_key": "cell_type",
        "labels_key": "subtype",
    }
    assert _commands._entry("maestro", "sample", **how).setup == {"labels_key": "subtype"}


# ---- options from a file


def test_options_from_a_file_and_the_command_line_wins(run, cohort, tmp_path):
    config, out = tmp_path / "run.toml", tmp_path / "s.h5ad"
    lines = [f'output = "{out}"', 'sample-key = "sample"', "seed = 5", "overwrite = true", "[probe]", "cv = 3"]
    config.write_text("\n".join(lines))
    assert run("fit", "random_vector", cohort, "--config", config).code == 0
    first = ad.read_h5ad(out).X
    np.testing.assert_array_equal(
        first, sst.profiles.RandomVector(sample_key="sample", rng=5).fit_transform(ad.read_h5ad(cohort)).X
    )
    assert run("fit", "random_vector", cohort, "--seed", 6, "--config", config).code == 0
    assert not np.array_equal(first, ad.read_h5ad(out).X)


def test_tables_lists_and_commands_of_a_file(run, cohort, tmp_path):
    config = tmp_path / "run.json"
    of_command = {"build": SMALL["maestro"], "max_epochs": 1, "accelerator": "cpu", "cells": str(cohort)}
    config.write_text(json.dumps({"sample_key": "sample", "fit": {**of_command, "output": str(tmp_path / "s.h5ad")}}))
    ended = run("fit", "--config", config, "maestro")
    assert ended.code == 0, ended.err
    assert ad.read_h5ad(tmp_path / "s.h5ad").n_obs == 8
    config.write_text(json.dumps({"method": ["mean", "random_vector"], "cv": 3, "n_repeats": 1, "no_tune": True}))
    ended = run("benchmark", cohort, "subtype", "-s", "sample", "--config", config)
    assert ended.code == 0, ended.err
    assert "comparing mean, random_vector" in ended.err


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("sede = 1", 2, "fit has no option 'sede'. There are: "),
        ("seed = [1, 2]", 2, "seed takes one value, not a list"),
        ("[seed]\na = 1", 2, "seed takes one value, not a table"),
        ("seed = ", 4, "is no valid TOML"),
        ('seed = "many"', 2, "--seed"),
    ],
)
def test_a_file_of_options_that_is_wrong(run, cohort, tmp_path, text, code, message):
    config = tmp_path / "run.toml"
    config.write_text(text)
    ended = run("fit", "mean", cohort, "-s", "sample", "-o", tmp_path / "s.h5ad", "--config", config)
    assert (ended.code, message in ended.err) == (code, True), ended.err


def test_shells_complete_methods():
    assert _methods.starting_with_method("sc") == ["scset"]
    assert _methods.starting_with_compared("maes") == ["maestro", "maestro-untrained"]


# ---- how commands end


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fit", "maestro", "CELLS", "-s", "donour", "-o", "OUT"], 3, "'donour' is not a column of adata.obs. Columns:"),
        (["fit", "maestro", "CELLS", "-s", "sample", "-o", "OUT", "--use-rep", "X_no"], 3, "'X_no' is not in adata.obsm"),
        (["fit", "maestro", "CELLS", "-s", "sample"], 2, "Missing option '--output'"),
        (["fit", "maestre", "CELLS", "-s", "sample", "-o", "OUT"], 2, "'maestre' is not a method. Did you mean 'maestro'?"),
        (
            ["fit", "maestro", "CELLS", "-s", "sample", "-o", "OUT", "--build", "n_laten=3"],
            2,
            "--build has no argument 'n_laten'",
        ),
        (["fit", "maestro", "CELLS", "-s", "sample", "-o", "OUT", "--build", "n_latent"], 2, "takes name=value"),
        (["fit", "mean", "CELLS", "-s", "sample", "-o", "OUT", "--max-epochs", "3"], 3, "mean is a profile"),
        (["fit", "mean", "CELLS", "-s", "sample", "-o", "OUT", "--save-model", "DIR"], 3, "leave out --save-model"),
        (["fit", "fractions", "CELLS", "-s", "sample", "-o", "OUT"], 2, "fractions needs --cell-type-key"),
        (["fit", "mean", "nowhere.h5ad", "-s", "sample", "-o", "OUT"], 4, "There is no file nowhere.h5ad"),
        (["fit", "mean", "CELLS", "-s", "sample", "-o", "nowhere/x.h5ad"], 5, "cannot be written: there is no such folder"),
        (["fit", "mean", "CELLS", "-s", "sample", "-o", "CELLS"], 5, "is there already"),
        (["embed", "nowhere", "CELLS", "-o", "OUT"], 4, "no folder of a saved model"),
        (
            ["fit", "maestro", "CELLS", "-s", "sample", "-o", "OUT", "--accelerator", "gpu"],
            2,
            "--accelerator gpu: torch",
        ),
        (["fit", "maestro", "CELLS", "-s", "sample", "-o", "OUT", "--accelerator", "gpus"], 2, "takes cpu, gpu or auto"),
        (
            ["benchmark", "CELLS", "subtype", "-s", "sample", "-m", "maestro", "--accelerator", "gpu"],
            2,
            "finds no GPU here",
        ),
        (
            ["fit", "pascient", "CELLS", "-s", "sample", "-o", "OUT"],
            2,
            "pascient learns from labels: name their column with --labels-key",
        ),
        (["fit", "maestro", "CELLS", "-s", "sample", "-o", "OUT", "--preset", "papr"], 2, "error: --preset 'papr' is not one of"),
        (
            ["fit", "maestro", "CELLS", "-s", "sample", "-o", "OUT", "--cell-type-key", "cell_type"],
            2,
            "MAESTRO takes no --cell-type-key",
        ),
        (
            ["benchmark", "CELLS", "subtype", "-s", "sample", "-m", "mean", "--cell-type-key", "cell_type"],
            2,
            "--cell-type-key: none of ['mean'] reads cell types",
        ),
        (["fit", "mean", "CELLS", "-s", "sample", "-o", "OUT", "--config", "no.toml"], 4, "no.toml cannot be read"),
        (["probe", "SAMPLES", "nolabel"], 3, "'nolabel' is not a column"),
        (["benchmark", "SAMPLES", "subtype", "-m", "X_no"], 3, "neither in obsm nor in obsp"),
        (["benchmark", "CELLS", "subtype", "-s", "sample", "-m", "means"], 2, "'means' is not a method"),
        (["probe", "SAMPLES", "subtype", "-o", "nowhere/t.csv"], 5, "cannot be written"),
        *(([*command, "-o", "t.xlsx"], 2, "ends in .csv or .tsv or .txt or .json") for command in (["probe", "SAMPLES", "subtype"], ["benchmark", "CELLS", "subtype", "-s", "sample"])),
        *((["fit", name, "CELLS", "-s", "sample", "-o", "s.csv"], 2, "ends in .h5ad") for name in ("mean", "maestro")),
        (["benchmark", "CELLS", "subtype", "-s", "sample", "--figure", "t.bmp"], 2, "ends in .png or .pdf or .svg"),
        (["report", "CELLS", "-s", "sample", "-o", "t.pdf"], 2, "ends in .html"),
        (["fit", "scset", "CELLS", "-s", "sample", "-o", "OUT", "--train", "max_epoch=3"], 2, "--train has no argument 'max_epoch'. 'max_epoch': did you mean 'max_epochs'"),
        (["benchmark", "CELLS", "subtype", "-s", "sample", "-m", "maestro-untrained", "--build", "n_laten=3"], 2, "did you mean 'n_latent'"),
        (["report", "CELLS", "-s", "sample", "--train", "n_cell=3", "-o", "r.html"], 2, "did you mean 'n_cells'"),
        (["prepare", "nowhere.h5ad", "-s", "sample", "-o", "p.zarr"], 4, "There is no file nowhere.h5ad"),
        (["prepare", "CELLS", "-s", "sample", "-o", "nowhere/p.zarr"], 5, "there is no such folder"),
    ],
)  # fmt: skip
def test_exit_codes_and_messages(run, cohort, samples, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    places = {"CELLS": cohort, "SAMPLES": samples, "OUT": "x.h5ad", "DIR": "model"}
    ended = run(*(places.get(a, a) for a in arguments))
    assert (ended.code, message in ended.err) == (code, True), ended.err
    assert "Traceback" not in ended.err
    assert os.listdir(tmp_path) == []


def test_a_bug_has_its_own_code_and_its_traceback(run, cohort, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise AttributeError("no such thing")

    monkeypatch.setattr(_commands, "read_cells", broken)
    ended = run("fit", "mean", cohort, "-s", "sample", "-o", tmp_path / "s.h5ad")
    assert ended.code == 1
    assert "Traceback" in ended.err
    assert "error: AttributeError: no such thing" in ended.err
    assert os.listdir(tmp_path) == []


def test_debug_shows_the_traceback_of_a_wrong_request(run, samples):
    assert "Traceback" in run("probe", samples, "nolabel", "--debug").err


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signals_leave_the_old_output(run, cohort, tmp_path, monkeypatch, name, code):
    out, log, before = tmp_path / "s.h5ad", tmp_path / "log.jsonl", signal.getsignal(signal.SIGINT)
    out.write_text("old")

    def write(samples, path, *args, **kwargs):
        path.write_text("half")
        os.kill(os.getpid(), getattr(signal, name))

    monkeypatch.setattr(ad.AnnData, "write_h5ad", write)
    ended = run("fit", "mean", cohort, "-s", "sample", "-o", out, "--overwrite", "--log", log)
    assert ended.code == code
    assert f"fit was stopped by {name}; nothing was written" in ended.err
    assert out.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["log.jsonl", "s.h5ad"]
    assert json.loads(log.read_text().splitlines()[-1])["exit_code"] == code
    assert signal.getsignal(signal.SIGINT) is before


# ---- what is reported


def test_the_log_is_one_json_object_per_line(run, cohort, tmp_path):
    log = tmp_path / "log.jsonl"
    options = ["--max-epochs", 2, "--accelerator", "cpu", "--batch-size", 4, "--quiet", "--log", log]
    ended = run("fit", "maestro", cohort, "-s", "sample", "-o", tmp_path / "s.h5ad", *options, *sizes("maestro"))
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [e["event"] for e in events] == ["start", "read", "model", "epoch", "epoch", "write", "end"]
    assert events[0]["arguments"]["sample_key"] == "sample"
    assert events[0]["versions"]["torch"]
    assert all(np.isfinite(e["loss_train"]) for e in events if e["event"] == "epoch")
    assert (events[-1]["status"], events[-1]["exit_code"]) == ("done", 0)
    assert events[-1]["seconds"] > 0
    run("probe", tmp_path / "s.h5ad", "nolabel", "--log", log)
    last = json.loads(log.read_text().splitlines()[-1])
    assert (last["command"], last["status"], last["exit_code"]) == ("probe", "request", 3)
    assert "nolabel" in last["message"]


def test_warnings_are_one_line_each(run, samples, tmp_path):
    log = tmp_path / "log.jsonl"
    ended = run("probe", samples, "subtype", "--cv", 6, "--n-repeats", 1, "--no-tune", "--log", log)
    assert ended.code == 0, ended.err
    warned = [e["message"] for e in map(json.loads, log.read_text().splitlines()) if e["event"] == "warning"]
    assert len(warned) >= 1
    assert ended.err.count("warning: ") == len(warned)


def test_settings_are_json_or_text():
    got = _methods.settings_of(["a=1", "b=0.5", "c=[1, 2]", "d=block", "e=true", "f=None", "g=x=y", 'h="1"'], "--build")
    assert got == {"a": 1, "b": 0.5, "c": [1, 2], "d": "block", "e": True, "f": None, "g": "x=y", "h": "1"}
    with pytest.raises(CommandError, match="--build takes name=value"):
        _methods.settings_of(["=3"], "--build")


def test_a_saved_model_that_is_none(run, cohort, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.pt").write_text("no model")
    ended = run("embed", tmp_path / "model", cohort, "-o", tmp_path / "e.h5ad")
    assert (ended.code, "cannot be read as a saved model" in ended.err) == (4, True)
