"""The tables "The paper, item by item" of the user guide: no empty cell, every name resolves, every call is made by a test."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from functools import cache
from pathlib import Path

import lightning.pytorch as lightning
import pytest
import scvi

import scset_tools as sst

ROOT = Path(__file__).parents[1]
PAGES = {
    "maestro": sst.MAESTRO,
    "scset": sst.ScSet,
    "pascient": sst.PaSCient,
    "self_guided_mae": sst.SelfGuidedMAE,
}
ROLE = re.compile(r"\{(\w+)\}`~?([^`]+)`")
NOT_TESTED_HERE = {"filter_cells", "filter_genes"}
"""Of scanpy."""


def rows(page: str) -> list[tuple[str, str]]:
    text = (ROOT / f"docs/user_guide/{page}.md").read_text()
    part = text.split("## The paper, item by item\n", 1)[1]
    lines = [line for line in part.split("\n## ")[0].splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines[2:]]


ROWS = [pytest.param(page, *row, id=f"{page}: {row[0][:50]}") for page in PAGES for row in rows(page)]


@cache
def text_of_tests() -> str:
    return "\n".join(f.read_text() for f in (ROOT / "tests").rglob("*.py") if f.name != Path(__file__).name)


def resolve(path: str):
    """The object of a dotted path, as Sphinx finds it."""
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ImportError:
            continue
        for name in parts[n:]:
            found = getattr(found, name)
        return found
    raise AttributeError(path)


def arguments_of(function, owner: type | None = None) -> set[str]:
    """Names of arguments; of a method those of the classes below as well, to which it hands on what it does not know."""
    functions = [function]
    if owner is not None:
        functions += [c.__dict__[function.__name__] for c in owner.__mro__ if function.__name__ in c.__dict__]
    functions = [f.__func__ if isinstance(f, classmethod | staticmethod) else f for f in functions]
    found = set().union(*(inspect.signature(f).parameters for f in functions))
    if owner is not None and function.__name__ == "train":
        found |= set(inspect.signature(scvi.train.Trainer).parameters)
        found |= set(inspect.signature(lightning.Trainer).parameters)
    return found


def defaults_of(model: type) -> dict[str, object]:
    """Argument of the constructor to its default."""
    return {name: p.default for name, p in inspect.signature(model.__init__).parameters.items()}


def calls_in(code: str) -> list[ast.Call] | None:
    """Calls of a piece of code in which ``argument=`` may stand without a value; bare arguments are those of a call without a name."""
    filled = re.sub(r"=(?=\s*(,|\)|$))", "=...", code)
    for text in (filled, f"_({filled})"):
        try:
            tree = ast.parse(text, mode="eval")
        except SyntaxError:
            continue
        return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return None


@pytest.mark.parametrize(("page", "item", "call"), ROWS)
def test_no_cell_is_empty_and_what_is_not_there_has_a_reason(page, item, call):
    assert item
    assert "`" in call or re.match(r"(none: .{10,}|a loop, below|the same .*)", call), call


@pytest.mark.parametrize(("page", "item", "call"), [row for row in ROWS if "`" in row.values[2]])
def test_names_resolve_and_calls_are_made_by_a_test(page, item, call):
    model = PAGES[page]
    functions = [model.__init__, model.setup_anndata, model.train, model.finetune, model.get_attributions]
    named = []
    for role, target in ROLE.findall(call):
        if role == "doc":
            assert (ROOT / f"docs/user_guide/{target}.md").is_file()
            continue
        found = resolve(target)
        functions.append(found)
        named.append(target.rsplit(".", 1)[-1])
        assert callable(found)
    for code in re.findall(r"`([^`]+)`", ROLE.sub("", call)):
        found = calls_in(code)
        if found is None or not found:
            if code.startswith('"'):  # a value of an argument that is named before it
                assert code in text_of_tests(), code
                continue
            name = code.split("[")[0]
            is_argument = any(name in arguments_of(f, model) for f in functions)
            assert is_argument or hasattr(model, name) or resolve(name) is not None, code
            continue
        for one in found:
            path = ast.unparse(one.func)
            name = path.rsplit(".", 1)[-1]
            given = [k for k in one.keywords if k.arg is not None]
            if path == "_":
                known = set().union(*(arguments_of(f, model) for f in functions))
            elif path.startswith("decoupler.") or path.startswith("np."):
                continue  # another package's
            elif hasattr(model, path):
                known = arguments_of(getattr(model, path), model)
                named.append(name)
            else:
                target = getattr(sst, path, None) or resolve(path.replace("sst.", "scset_tools."))
                known = arguments_of(target.__init__ if isinstance(target, type) else target)
                named.append(name)
            unknown = [k.arg for k in given if k.arg not in known]
            assert not unknown, f"{code}: {unknown}"
            for k in given:
                value = getattr(k.value, "value", None)
                if not isinstance(value, str) or k.arg.endswith(("_key", "_keys", "groupby")):
                    continue
                asked = rf'"?{k.arg}"?(=|: )"{re.escape(value)}"|"{k.arg}",.*"{re.escape(value)}"'
                is_default = isinstance(getattr(sst, path, None), type) and value == defaults_of(model).get(k.arg)
                assert is_default or re.search(asked, text_of_tests()), f"no test has {k.arg}={value!r}"
            if name == "preset":
                model.preset(ast.literal_eval(one.args[0]))
    for name in set(named) - NOT_TESTED_HERE:
        assert re.search(rf"\b{name}\b\s*\(|\b{name}\b,|\b{name}\)", text_of_tests()), f"no test calls {name}"
