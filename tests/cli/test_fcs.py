"""A folder of FCS files in place of an h5ad file, and the lines of the user guide on one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from _fcs import write_fcs

import scset_tools as sst

pytest.importorskip("flowio", reason="FCS files need flowio: pip install 'scset-tools[fcs]'")

SMALL = ("--build", "n_hidden=16", "--build", "n_latent=4", "--build", "n_inducing=4", "--build", "n_heads=2")
GUIDE = Path(__file__).parents[2] / "docs" / "user_guide" / "your_data.md"


def write_folder(folder, n_files=6, *, lacks=(), seed=0):
    """Files of one flow panel; some lack a marker."""
    folder.mkdir()
    for i in range(n_files):
        x = np.random.default_rng(seed + i).gamma(2, 200, (40, 5))
        stains = ["", "CD3", "CD19 PE", "" if i in lacks else "CD4", ""]
        write_fcs(folder / f"donor{i}.fcs", x, ["FSC-A", "FITC-A", "PE-A", "APC-A", "Time"], stains)
    return folder


@pytest.fixture
def guide(tmp_path, monkeypatch):
    """Code of the section on FCS files, by language, beside the files that it names."""
    write_folder(tmp_path / "fcs", lacks=(2,))
    write_folder(tmp_path / "new_fcs", 2, seed=9)
    rows = [f"donor{i}.fcs,{'case' if i % 2 else 'control'}" for i in range(6)]
    (tmp_path / "donors.csv").write_text("\n".join(["file,condition", *rows]))
    monkeypatch.chdir(tmp_path)
    section = GUIDE.read_text().split("## FCS files")[1].split("\n## ")[0]
    return dict(re.findall(r"```(python|bash)\n(.+?)```", section, flags=re.DOTALL))


def test_the_lines_of_the_user_guide(guide, capsys, monkeypatch):
    lines = [line for line in guide["python"].splitlines() if line and not line.startswith("import ")]
    assert len(lines) == 6
    train = sst.MAESTRO.train
    quick = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}
    monkeypatch.setattr(sst.MAESTRO, "train", lambda model: train(model, **quick))
    found = {}
    exec(guide["python"], found)
    assert found["samples"].obs["condition"].tolist() == ["control", "case"] * 3
    assert np.isfinite(found["samples"].X).all()
    assert "only some files have the marker" in capsys.readouterr().out


def test_the_commands_of_the_user_guide(guide, run, tmp_path):
    commands = [shlex.split(line)[1:] for line in guide["bash"].splitlines()]
    assert len(commands) == 2
    fitted = run(*commands[0], "--max-epochs", 1, *SMALL)
    assert fitted.code == 0, fitted.err
    assert "6 FCS files, 3 markers, " in fitted.err
    assert re.search(r"donor0.fcs, APC-A, CD4: .*only some files have the marker", fitted.err)
    embedded = run(*commands[1])
    assert embedded.code == 0, embedded.err
    assert "0 channels that disagree" in embedded.err
    assert list(ad.read_h5ad(tmp_path / "samples.h5ad").obs_names) == [f"donor{i}" for i in range(6)]
    assert np.isfinite(ad.read_h5ad(tmp_path / "new_samples.h5ad").X).all()


def test_a_broken_file_ends_with_its_name(run, tmp_path):
    (tmp_path / "bad.fcs").write_bytes(b"FCS3.1")
    ended = run("fit", "maestro", tmp_path, "-s", "sample", "-o", tmp_path / "out.h5ad")
    assert ended.code == 4
    assert "bad.fcs cannot be read as an FCS file" in ended.err
