"""One word, one meaning: the names of arguments in public signatures, as the contributing page lists them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "scset_tools"

ONLY_IN = {
    # label_key everywhere else
    "labels_key": r"data/_fields\.py:__init__|model/.*:(setup_anndata|read_labels_key)|cli/.*",
    # what draws initial weights, and what goes to harmonypy under this name; training and inference take a seed
    "random_state": r"model/[a-z]+/_model\.py:__init__|model/_init_params\.py:seeded|pp/_correct\.py:correct_samples",
    "event_key": r"model/_base\.py:setup_anndata|model/_setup\.py:.*|tl/.*|model/supervise/.*|model/_as_profile\.py:.*|cli/.*|reporting/_report\.py:report",
    "groupby": r"model/.*attributions|model/.*explain.*|pl/.*|tl/.*",
}
"""Word: pattern of ``file:function`` in which it may be an argument."""

NEVER = {
    "group_key": "groups_key",
    "random_seed": "seed, rng or random_state",
    "dropout": "dropout_rate",
    "cells_per_sample": "n_cells",
    "n_dims": "n_latent",
    "event_column": "event_key",
    "patient_key": "sample_key",
    "donor_key": "groups_key",
}
"""Word that is not used: the one that is."""


def arguments(path: Path) -> list[tuple[str, str]]:
    """Each argument of a public function or constructor of a file, with ``file:function``."""
    where = path.relative_to(SRC).as_posix()
    return [
        (argument.arg, f"{where}:{node.name}")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__")
        for argument in [*node.args.args, *node.args.kwonlyargs]
    ]


ALL = [pair for path in sorted(SRC.rglob("*.py")) for pair in arguments(path)]


@pytest.mark.parametrize("word", ONLY_IN)
def test_a_word_is_used_where_it_has_its_meaning(word):
    used = [where for name, where in ALL if name == word]
    assert used
    assert [where for where in used if not re.fullmatch(ONLY_IN[word], where)] == []


@pytest.mark.parametrize("word", NEVER)
def test_a_word_that_has_another_name_is_not_used(word):
    assert [where for name, where in ALL if name == word] == []


def test_the_page_lists_the_words():
    page = (ROOT / "docs" / "contributing.md").read_text()
    assert [word for word in ("label_key", *ONLY_IN) if f"`{word}`" not in page] == []


def test_the_rule_bites(tmp_path):
    assert not re.fullmatch(ONLY_IN["labels_key"], "tl/_probe.py:probe")
    assert re.fullmatch(ONLY_IN["labels_key"], "model/_base.py:setup_anndata")
    assert not re.fullmatch(ONLY_IN["random_state"], "model/_base.py:train")
