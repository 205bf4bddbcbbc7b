"""A cohort on disk, and a way to run commands in this process."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from typer.testing import CliRunner

import scset_tools as sst
from scset_tools.cli._app import app


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def run():
    """Run a command line in this process."""

    def command(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="scset-tools")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    return command


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """Cells of eight samples of two subtypes, with numbers like counts in a layer."""
    adata = sst.datasets.composition_cohort(n_samples=8, n_cells=30)
    adata.layers["positive"] = (abs(adata.X) * 10).round()
    path = tmp_path_factory.mktemp("cohort") / "cells.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="session")
def samples(cohort, tmp_path_factory):
    """Sample vectors of the cohort: means."""
    import anndata as ad

    path = tmp_path_factory.mktemp("samples") / "samples.h5ad"
    sst.profiles.mean(ad.read_h5ad(cohort), sample_key="sample").write_h5ad(path)
    return path
