"""A folder of FCS files in place of an h5ad file."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from _fcs import write_fcs

pytest.importorskip("flowio", reason="FCS files need flowio: pip install 'scset-tools[fcs]'")


def test_two_commands_from_files_to_vectors(run, tmp_path):
    folder = tmp_path / "fcs"
    folder.mkdir()
    for i in range(6):
        x = np.random.default_rng(i).gamma(2, 200, (40, 4))
        write_fcs(folder / f"donor{i}.fcs", x, ["FSC-A", "FITC-A", "PE-A", "Time"], ["", "CD3", "CD19", ""])
    small = ("--build", "n_hidden=16", "--build", "n_latent=4", "--build", "n_inducing=4", "--build", "n_heads=2")
    fitted = run(
        "fit",
        "maestro",
        folder,
        "-s",
        "sample",
        "-o",
        tmp_path / "all.h5ad",
        "--max-epochs",
        1,
        "--save-model",
        tmp_path / "model",
        *small,
    )
    assert fitted.code == 0, fitted.err
    embedded = run("embed", tmp_path / "model", folder, "-o", tmp_path / "samples.h5ad")
    assert embedded.code == 0, embedded.err
    samples = ad.read_h5ad(tmp_path / "samples.h5ad")
    assert list(samples.obs_names) == [f"donor{i}" for i in range(6)]
    assert np.isfinite(samples.X).all()


def test_a_broken_file_ends_with_its_name(run, tmp_path):
    (tmp_path / "bad.fcs").write_bytes(b"FCS3.1")
    ended = run("fit", "maestro", tmp_path, "-s", "sample", "-o", tmp_path / "out.h5ad")
    assert ended.code == 4
    assert "bad.fcs cannot be read as an FCS file" in ended.err
