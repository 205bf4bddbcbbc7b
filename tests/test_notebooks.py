"""Tutorials can be downloaded as the notebooks that ran."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs" / "extensions"))
import notebooks


@pytest.fixture
def app(tmp_path):
    """What Sphinx hands over, with one notebook that MyST-NB has run."""
    made = tmp_path / "jupyter_execute" / "tutorials" / "one.ipynb"
    made.parent.mkdir(parents=True)
    made.write_text('{"cells": []}')
    return SimpleNamespace(outdir=str(tmp_path / "html"), config=SimpleNamespace(nb_execution_mode="cache"))


def test_a_tutorial_offers_its_notebook(app):
    context = {"body": "<h1>One</h1><p>text</p><h1>again</h1>"}
    notebooks.offer(app, "tutorials/one", "page.html", context, None)
    assert 'href="../_downloads/tutorials/one.ipynb"' in context["body"]
    assert context["body"].startswith('<h1>One</h1>\n<p class="notebook-download">')
    assert context["body"].count("with its outputs") == 1
    assert (Path(app.outdir) / "_downloads" / "tutorials" / "one.ipynb").read_text() == '{"cells": []}'


@pytest.mark.parametrize("page", ["tutorials/index", "user_guide/one", "tutorials/other"])
def test_other_pages_do_not(app, page):
    context = {"body": "<h1>One</h1>"}
    notebooks.offer(app, page, "page.html", context, None)
    assert context["body"] == "<h1>One</h1>"


def test_a_notebook_that_was_not_run_says_so():
    assert "not run" in notebooks.with_link("<h1>x</h1>", "a", is_executed=False)
