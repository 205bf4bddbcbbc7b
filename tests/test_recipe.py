"""The conda recipe asks for what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CONDA_NAME = {"torch": "pytorch", "matplotlib": "matplotlib-base", "huggingface-hub": "huggingface_hub"}


def recipe_bounds(text, section):
    """Name and bound of each requirement in a section of the recipe."""
    block = re.search(rf"^  {section}:\n((?:    - .*\n)+)", text, re.MULTILINE)[1]
    return dict(re.fullmatch(r"    - (\S+) (\S.*)", line).groups() for line in block.splitlines())


def project_bounds(requirements):
    """Name on conda and bound of each requirement of pyproject.toml."""
    found = dict(re.fullmatch(r"([\w-]+)(>=.*)", r).groups() for r in requirements)
    return {CONDA_NAME.get(name, name): bound for name, bound in found.items()}


def test_recipe_agrees_with_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "recipe" / "meta.yaml").read_text()
    run = recipe_bounds(text, "run")
    assert run.pop("python") == ">={{ python_min }}"
    assert run == project_bounds(project["dependencies"])
    extras = [r for group in project["optional-dependencies"].values() for r in group]
    assert recipe_bounds(text, "run_constrained") == project_bounds(extras)
    assert f'set version = "{project["version"]}"' in text
    assert f"- scset-tools = {project['scripts']['scset-tools']}" in text
    assert f"license: {project['license']}" in text


def test_the_rule_bites():
    assert recipe_bounds("  run:\n    - torch >=2\n    - numpy >=1\nx\n", "run") == {"torch": ">=2", "numpy": ">=1"}
    assert project_bounds(["torch>=2.5"]) == {"pytorch": ">=2.5"}
