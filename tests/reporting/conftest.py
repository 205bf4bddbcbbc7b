"""A whole report, made once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import scset_tools as sst

sys.path.insert(0, str(Path(__file__).resolve().parent))
from report_cohort import BRIEF, LABEL, NASTY, SIZES, cohort


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A whole report with a model, as text, with what was gathered for it."""
    from scset_tools.reporting import _report

    found = {}
    original = _report.make

    def spy(request, path, say):
        from scset_tools.reporting import _page

        page = _page.page
        try:
            _page.page = lambda parts: found.update(parts) or page(parts)
            return original(request, path, say)
        finally:
            _page.page = page

    folder = tmp_path_factory.mktemp("report")
    _report.make = spy
    try:
        path = sst.report(
            cohort(),
            folder / "page.html",
            sample_key="sample",
            label_key=LABEL,
            groups_key="donor",
            batch_key="batch",
            cell_type_key="cell_type",
            models=["maestro"],
            build=SIZES,
            train=BRIEF,
            cv=3,
            n_seeds=2,
            n_permutations=3,
            title=f"Title {NASTY}",
            progress=False,
        )
    finally:
        _report.make = original
    assert [p.name for p in folder.iterdir()] == ["page.html"]  # nothing is left beside it
    return path.read_text(encoding="utf-8"), found
