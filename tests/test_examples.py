"""Workflow examples: each command line in them is one that `scset-tools` takes, and shells parse the scripts."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from scset_tools.cli import _methods
from scset_tools.cli._app import app

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FILES = ("slurm_array.sh", "Snakefile", "main.nf")


def commands(text: str) -> list[list[str]]:
    """Words of every call of scset-tools, with adjacent string pieces of a Snakefile joined."""
    joined = re.sub(r'"\n\s*"', "", text)
    found = re.findall(r"^[^#/\n]*scset-tools (fit|probe|embed|benchmark)\b([^\n]*)", joined, re.MULTILINE)
    # in a Snakefile the line itself ends a quoted text
    return [[name, *shlex.split(rest[:-1] if rest.count('"') % 2 else rest)] for name, rest in found]


def options(command: str) -> set[str]:
    group = typer.main.get_command(app)
    return {o for p in group.commands[command].params for o in (*p.opts, *p.secondary_opts)}


def offences(text: str) -> list[str]:
    unknown = [f"{c[0]} {w}" for c in commands(text) for w in c[1:] if w.startswith("--") and w not in options(c[0])]
    listed = re.findall(r"^ *arguments\+?=\(([^\n]*)\)", text, re.MULTILINE)
    unknown += [
        f"fit {w}" for line in listed for w in shlex.split(line) if w.startswith("--") and w not in options("fit")
    ]
    known = {*_methods.models(), *_methods.PROFILES}
    named = re.findall(r"(?:METHODS = |methods=|params\.methods = )([^\n]*)", text)
    methods = {m for line in named for m in re.findall(r"[a-z_]{4,}", line)}
    return [*unknown, *sorted(methods - known)]


@pytest.mark.parametrize("name", FILES)
def test_command_lines_of_examples_exist(name):
    text = (EXAMPLES / name).read_text()
    assert [c[0] for c in commands(text)] == ["fit", "probe"]
    assert offences(text) == []


def test_the_script_of_several_processes_runs_as_one(tmp_path, monkeypatch):
    import runpy

    import scset_tools as sst

    monkeypatch.chdir(tmp_path)
    cells = sst.datasets.perturbation_cohort(n_samples=4, n_cells=20)
    sst.pp.write_store(cells, "cohort.zarr", sample_key="sample", progress=False)
    sst.MAESTRO.setup_anndata(cells, sample_key="sample")
    model = sst.MAESTRO(cells, n_hidden=8, n_latent=4, n_inducing=2, random_state=0)
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    model.save("model")
    runpy.run_path(str(EXAMPLES / "embed_processes.py"))["main"]("model", "cohort.zarr", "samples.h5ad")
    import anndata

    written = anndata.read_h5ad("samples.h5ad")
    assert written.obs_names.tolist() == model.sample_names
    done = subprocess.run(["bash", "-n", EXAMPLES / "embed_processes.sh"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_check_bites():
    assert offences("arguments=(--sample-keys a)") == ["fit --sample-keys"]
    assert offences("methods=(mean maestre)\nscset-tools fit x --sample-keys a\n") == ["fit --sample-keys", "maestre"]


def test_scripts_parse_and_brackets_close():
    done = subprocess.run(["bash", "-n", EXAMPLES / "slurm_array.sh"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rules = re.sub(r"^rule (\w+):", r"class \1:", (EXAMPLES / "Snakefile").read_text(), flags=re.MULTILINE)
    rules = re.sub(
        r"^    (input|output|log|params|shell):\n((?:        .*\n)+)", r"    \1 = dict_(\n\2    )\n", rules, flags=re.M
    )
    compile(rules.replace("    threads: 2", "    threads = 2"), "Snakefile", "exec")  # what is left is Python
    text = re.sub(r"'[^']*'|//[^\n]*", "", (EXAMPLES / "main.nf").read_text())
    assert all(text.count(a) == text.count(b) for a, b in ("{}", "()", "[]"))
    assert text.count('"""') == 4
