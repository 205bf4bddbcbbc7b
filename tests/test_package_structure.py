"""The rules of the package that no linter knows, each with a planted offence to show that it bites.

Imports are read from the syntax tree and count wherever they stand: at the top, inside a function (a lazy import spares
time, but the room still knows the other) and under ``TYPE_CHECKING`` (so does an annotation). ``import_module`` with a
literal counts as well.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "scset_tools"
TESTS = ROOT / "tests"
MAX_LINES = 400
MAX_POSITIONAL = 3

SOURCES = sorted(SRC.rglob("*.py"))
TEST_FILES = sorted(TESTS.rglob("test_*.py"))


@cache
def parsed(source: str) -> ast.Module:
    """The syntax tree of a source that several rules look at."""
    return ast.parse(source)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- the import table ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Room:
    """What a room may import of ours (its own files included) and what it must never import of others."""

    may: tuple[str, ...]
    never: tuple[str, ...] = ()


CORE = (
    "_keys",
    "_checks",
    "_docs",
    "_labels",
    "_permutation",
    "_modalities",
    "_joined",
    "_joined_parts",
    "_events",
    "_units",
    "_metrics",
    "_samples",
    "_short_repr",
    "_spread",
    "_whole",
    "_lock",
    "_unreadable",
    "_backed",
    "_correction",
    "_markers",
    "_panels",
    "_numbers",
)
ROOMS = {
    "core": Room(CORE, never=("torch", "scvi")),
    "nn": Room(("nn",), never=("anndata", "pandas", "scvi", "lightning")),
    "data": Room((*CORE, "data")),
    "train": Room((*CORE, "nn", "train"), never=("anndata",)),
    "model": Room((*CORE, "nn", "data", "train", "model._*", "model.supervise", "model.explain")),
    # reading rows needs no torch, and a second reader of backed files would be a second set of traps
    "profiles": Room((*CORE, "data._index", "data._rows", "profiles"), never=("torch",)),
    "pp": Room((*CORE, "data._index", "data._known", "data._rows", "pp")),
    # a result draws itself: .plot() loads pl when called
    "tl": Room((*CORE, "profiles", "tl", "pl"), never=("torch", "scvi")),
    "pl": Room((*CORE, "pl"), never=("torch", "scvi")),
    "datasets": Room((*CORE, "datasets")),
    # one page of what the others compute; pl draws for papers, the page in the colours of the screen
    "reporting": Room((*CORE, "data._split", "model", "profiles", "tl", "reporting")),
    "pretrained": Room((*CORE, "model", "pretrained")),
    "cli": Room(("*",)),  # what users call by name: it may call anything, and nothing calls it
}


def room_of(path: Path) -> Room | None:
    """The row of the table for a file, given relative to the package; None if the table has no such row."""
    parts = path.with_suffix("").parts
    if parts == ("__init__",):  # hands out the rooms, lazily
        return Room(("*",), never=("torch", "scvi", "scanpy", "matplotlib", "pandas", "numpy", "anndata"))
    if parts[0] in CORE:
        return ROOMS["core"]
    if parts == ("model", "__init__"):  # collects the models
        return Room((*ROOMS["model"].may, "model"))
    if (
        parts[0] == "model" and len(parts) > 2
    ):  # a model knows its own folder, not its neighbours'; explain knows supervise
        return Room((*ROOMS["model"].may, ".".join(parts[:2])))
    return ROOMS.get(parts[0])


def imported_names(tree: ast.AST, package: str) -> list[tuple[int, str]]:
    """Line and dotted name of everything imported by a file of `package`, names of ``from`` imports included."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            found += [(node.lineno, arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)]
    return found


def is_within(name: str, allowed: str) -> bool:
    if allowed.endswith("*"):
        return name.startswith(allowed[:-1])
    return name == allowed or name.startswith(f"{allowed}.")


def import_offences(source: str, path: Path) -> list[str]:
    """Imports of a file (path relative to the package) that the table forbids."""
    room = room_of(path)
    if room is None:
        return [f"{path}: no row in the import table"]
    package = ".".join(("scset_tools", *path.parent.parts))
    offences = []
    for line, name in imported_names(parsed(source), package):
        top, _, ours = name.partition(".")
        if top == "scset_tools":
            if ours != "__version__" and not any(is_within(ours, allowed) for allowed in room.may):
                offences.append(f"{path}:{line} imports {name}")
        elif top in room.never:
            offences.append(f"{path}:{line} imports {name}")
    return offences


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_keep_to_the_table(path):
    assert import_offences(path.read_text(), path.relative_to(SRC)) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("_checks.py", "import torch"),
        ("_checks.py", "from scset_tools.data._index import SampleIndex"),
        ("nn/_pool.py", "def f():\n    import pandas as pd"),
        ("nn/_pool.py", "from scset_tools import _keys"),
        ("nn/loss/_a.py", "from ...data import SampleBatch"),
        ("data/_rows.py", "from ..nn import ISAB"),
        ("train/_plan.py", "if TYPE_CHECKING:\n    from anndata import AnnData"),
        ("model/maestro/_model.py", "from scset_tools.model.scset._module import ScSetModule"),
        ("model/_base.py", "from .maestro import MAESTRO"),
        ("profiles/_pseudobulk.py", "from scset_tools.data import SampleIndex"),
        ("tl/_probe.py", "import importlib\nimportlib.import_module('torch.nn')"),
        ("pl/_map.py", "from scset_tools.tl import probe"),
        ("datasets.py", "from scset_tools.profiles import Pseudobulk"),
        ("__init__.py", "import numpy"),
        ("tl/_a.py", "from scset_tools.cli import main"),
        ("model/_base.py", "from scset_tools.reporting import report"),
        ("reporting/_a.py", "from scset_tools.pl import sample_map"),
        ("extra/_a.py", "import os"),
    ],
)
def test_import_table_bites(path, source):
    assert len(import_offences(source, Path(path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("nn/_attention.py", "from ._ragged import segment_softmax\nimport torch"),
        ("model/maestro/_model.py", "from ._module import MAESTROModule\nfrom scset_tools.model._base import Base"),
        ("model/__init__.py", "from scset_tools.model.maestro import MAESTRO"),
        ("profiles/_pseudobulk.py", "from scset_tools.data._index import SampleIndex\nfrom scset_tools import _checks"),
        ("tl/_probe.py", "from scset_tools import __version__, profiles"),
    ],
)
def test_import_table_lets_pass(path, source):
    assert import_offences(source, Path(path)) == []


# --- signatures ---------------------------------------------------------------------------------------------------------

# Methods whose signature belongs to the class that they override.
FOREIGN_SIGNATURES = {
    "get_var_names": "scvi.model.base.BaseModelClass",
    "optimizer_step": "lightning.LightningModule",
    "save": "scvi.model.base.BaseModelClass",
    "train": "torch.nn.Module",
}


def public_functions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef, bool]]:
    """Qualified name, node and whether it is a method: public functions, public methods, ``__init__`` of public classes."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            found.append((node.name, node, False))
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += [
                (f"{node.name}.{child.name}", child, not is_static(child))
                for child in node.body
                if isinstance(child, ast.FunctionDef)
                and (not child.name.startswith("_") or child.name in ("__init__", "__call__"))
            ]
    return found


def is_static(node: ast.FunctionDef) -> bool:
    return any(getattr(decorator, "id", "") == "staticmethod" for decorator in node.decorator_list)


def signature_offences(source: str) -> list[str]:
    """Public functions with too many positional parameters or with booleans among them."""
    offences = []
    for name, node, is_method in public_functions(parsed(source)):
        if is_method and node.name in FOREIGN_SIGNATURES:
            continue
        positional = [*node.args.posonlyargs, *node.args.args]
        defaults = [None] * (len(positional) - len(node.args.defaults)) + node.args.defaults
        if is_method:
            positional, defaults = positional[1:], defaults[1:]
        if len(positional) > MAX_POSITIONAL:
            offences.append(f"{name}: {len(positional)} positional parameters, at most {MAX_POSITIONAL}")
        for argument, default in zip(positional, defaults, strict=True):
            annotation = ast.unparse(argument.annotation) if argument.annotation is not None else ""
            is_bool_type = set(annotation.split(" | ")) in ({"bool"}, {"bool", "None"})
            if is_bool_type or (isinstance(default, ast.Constant) and isinstance(default.value, bool)):
                offences.append(f"{name}: the boolean {argument.arg} is not keyword-only")
    return offences


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_signatures_are_short_and_booleans_named(path):
    assert signature_offences(path.read_text()) == []


def test_signature_rule_bites():
    source = """
def many(a, b, c, d): ...
def flag(a, is_real: bool | None): ...
class Pool:
    def __init__(self, a, use_bias=True): ...
    def forward(self, a, b, c, d): ...
    def fine(self, a: AnnData | bool, b, c, *, is_real: bool): ...
    @staticmethod
    def free(a, b, c, d): ...
    def train(self, mode: bool = True): ...
def _private(a, b, c, d, e): ...
"""
    assert [offence.split(":")[0] for offence in signature_offences(source)] == [
        "many",
        "flag",
        "Pool.__init__",
        "Pool.forward",
        "Pool.free",
    ]


# --- what must not stand in the source ----------------------------------------------------------------------------------


def source_offences(source: str) -> list[str]:
    """Input checks that vanish under ``python -O``, output to the screen, halts, notes to self."""
    offences = []
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Assert):
            offences.append(f"line {node.lineno}: assert (raise an error that names the culprit)")
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("print", "breakpoint"):
            offences.append(f"line {node.lineno}: {node.func.id}()")
    for number, line in enumerate(source.splitlines(), start=1):
        if re.search(r"\b(TODO|FIXME)\b", line):
            offences.append(f"line {number}: {line.strip()}")
    if len(source.splitlines()) > MAX_LINES:
        offences.append(f"{len(source.splitlines())} lines, at most {MAX_LINES}: is it still one idea?")
    return offences


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_source_is_clean_and_short(path):
    assert source_offences(path.read_text()) == []


@pytest.mark.parametrize(
    "source", ["assert x", "print(1)", "def f():\n    breakpoint()", "x = 1  # TODO later", "# FIXME", "x = 1\n" * 401]
)
def test_source_rule_bites(source):
    assert len(source_offences(source)) == 1
    assert source_offences("x = 1\n" * MAX_LINES + "y = ''' >>> print(1) '''") == [
        "401 lines, at most 400: is it still one idea?"
    ]


# --- tests that can fail ------------------------------------------------------------------------------------------------


def called_name(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def asserts_itself(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        # a constant or a non-empty tuple is always true
        return not isinstance(node.test, ast.Constant | ast.Tuple)
    return isinstance(node, ast.Call) and (
        called_name(node) in ("raises", "warns", "fail") or called_name(node).startswith("assert_")
    )


def assertion_offences(source: str) -> list[str]:
    """Tests that assert nothing, themselves or through a function of the same file, and ``raises`` without ``match``."""
    tree = parsed(source)
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}

    def asserts(function: ast.FunctionDef, seen: frozenset[str]) -> bool:
        for node in ast.walk(function):
            if asserts_itself(node):
                return True
            if isinstance(node, ast.Call) and (name := called_name(node)) in functions and name not in seen:
                if asserts(functions[name], seen | {name}):
                    return True
        return False

    offences = [
        f"{name}: asserts nothing"
        for name, function in functions.items()
        if name.startswith("test_") and not asserts(function, frozenset({name}))
    ]
    for node in sorted(ast.walk(tree), key=lambda node: getattr(node, "lineno", 0)):
        if isinstance(node, ast.Call) and re.match(r"pytest\.(raises|warns)\(", ast.unparse(node)):
            if not any(keyword.arg in ("match", "check") for keyword in node.keywords):
                offences.append(f"line {node.lineno}: {ast.unparse(node)} without match")
        elif isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant | ast.Tuple):
            offences.append(f"line {node.lineno}: {ast.unparse(node)} is always true")
    return offences


@pytest.mark.parametrize("path", TEST_FILES, ids=relative)
def test_every_test_asserts_something(path):
    assert assertion_offences(path.read_text()) == []


def test_assertion_rule_bites():
    source = """
def check(x):
    assert x == 1
def test_silent(): f(1)
def test_helped(): check(1)
def test_numpy(): np.testing.assert_allclose(a, b)
def test_raises():
    with pytest.raises(ValueError): f()
def test_tuple():
    assert (x, 'message')
class TestRoom:
    def test_method(self): f()
"""
    assert assertion_offences(source) == [
        "test_silent: asserts nothing",
        "test_tuple: asserts nothing",
        "test_method: asserts nothing",
        "line 8: pytest.raises(ValueError) without match",
        "line 10: assert (x, 'message') is always true",
    ]


# --- what an import costs -----------------------------------------------------------------------------------------------


def loaded_by(statement: str, *modules: str) -> list[str]:
    """Those of `modules` that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*[name for name in {modules!r} if name in sys.modules])"
    path = os.pathsep.join([str(SRC.parent), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    return run.stdout.split()


HEAVY = ("torch", "scanpy", "matplotlib", "scvi", "lightning", "anndata", "pandas", "numpy")


def test_package_imports_nothing_heavy():
    assert loaded_by("import scset_tools; dir(scset_tools)", *HEAVY) == []


def test_blocks_need_torch_alone():
    statement = "from scset_tools.nn import ISAB"
    assert loaded_by(statement, "torch", "anndata", "scvi", "lightning", "pandas") == ["torch"]


def test_import_rule_bites():
    assert loaded_by("import pandas", "scvi", "pandas", "numpy") == ["pandas", "numpy"]


def test_lazy_names_are_the_listed_ones():
    package = import_module("scset_tools")
    tree = ast.parse((SRC / "__init__.py").read_text())
    for_type_checkers = {
        name.rpartition(".")[2]
        for block in tree.body
        if isinstance(block, ast.If)
        for _, name in imported_names(block, "scset_tools")
    }
    assert set(package._LAZY) == for_type_checkers
    assert {*package._LAZY, "__version__"} == set(package.__all__)
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("name", import_module("scset_tools").__all__)
def test_lazy_names_load(name):
    assert getattr(import_module("scset_tools"), name) is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'scset_tools' has no attribute 'maestro'"):
        import_module("scset_tools").maestro  # noqa: B018
