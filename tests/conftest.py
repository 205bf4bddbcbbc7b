"""What every test shares: one thread, no display, markers that skip, and the folder of real cohorts."""

from __future__ import annotations

import os
from pathlib import Path

# Before anything imports NumPy or torch, which read these once. Threads of several test processes on few cores
# fight each other: the same fit takes 20 times as long.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
_FLAGS = {"slow": "--run-slow", "internet": "--run-internet"}


def pytest_addoption(parser: pytest.Parser) -> None:
    for marker, flag in _FLAGS.items():
        parser.addoption(flag, action="store_true", help=f"run the tests marked {marker} as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what was not asked for or cannot run here; torch is imported only if a test is marked gpu."""
    for marker, flag in _FLAGS.items():
        if not config.getoption(flag):
            skip = pytest.mark.skip(reason=f"{marker}: runs with {flag}")
            for item in items:
                if marker in item.keywords:
                    item.add_marker(skip)
    on_gpu = [item for item in items if "gpu" in item.keywords]
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="gpu: no CUDA device here"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real cohorts, which are no part of the repository: their licences differ."""
    folder = Path(os.environ.get("SCSET_TOOLS_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real cohorts: {folder} is no folder (set SCSET_TOOLS_DATA to the folder of the h5ad files)")
    return folder
