"""What is public is described and listed, and what the pages show runs."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "scset_tools"
API_PAGES = ROOT / "docs" / "api"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SRC.parent).with_suffix("").parts).removesuffix(".__init__")


def public_modules() -> list[str]:
    """Rooms (and rooms within) that list names in ``__all__``, the package itself aside."""
    files = [*SRC.rglob("__init__.py"), *SRC.glob("[!_]*.py")]
    return sorted(
        module_name(path)
        for path in files
        if path != SRC / "__init__.py" and re.search(r"^__all__\b", path.read_text(), re.MULTILINE)
    )


# --- docstrings ---------------------------------------------------------------------------------------------------------


def documented_parameters(doc: str) -> set[str]:
    """Names with an entry in a section of parameters or attributes; without such a section, names in backticks."""
    lines = doc.splitlines()
    heads = [i for i, (line, below) in enumerate(pairwise(lines)) if line and re.fullmatch(r"-{3,}", below)]
    names: set[str] = set()
    has_section = False
    for head, end in pairwise([*heads, len(lines)]):
        if lines[head] in ("Parameters", "Other Parameters", "Attributes"):
            has_section = True
            for line in lines[head + 2 : end]:
                if line and not line[0].isspace():
                    names.update(name.strip().lstrip("*") for name in line.split(" : ")[0].rstrip(" :").split(","))
    return names if has_section else set(re.findall(r"`+(\w+)`+", doc))


def shared_texts(doc: str) -> list[str]:
    """Entries of several parameters with one text: on a page each parameter has a line of its own, and all would have that text."""
    lines = doc.splitlines()
    return [
        line.strip()
        for line, below in pairwise(lines)
        if re.fullmatch(r"(\*{0,2}\w+, )+\*{0,2}\w+", line.strip())
        and line[:1].strip()  # in a docstring without its margin, names stand at the edge
        and below[:1].isspace()
        and not re.match(r"(As (for|of|in|there)|Set by|If|Of|See|Where)\b", below.strip())
        and not re.search(r"(Error|Warning)$", line)
    ]


def described_fields(cls: type) -> set[str]:
    """Fields of a class with a string below them, which is where a data class describes them."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body
    except OSError:  # made at run time
        return set()
    return {
        field.target.id
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def taken_over(owner: type, method: Callable[..., object]) -> set[str]:
    """Parameters that a method has from the classes above: their docstrings describe them, and are judged there.

    What overrides a hook of another library has all its parameters from there; only `forward` of torch has none.
    """
    above = [vars(base)[method.__name__] for base in owner.__mro__[1:] if method.__name__ in vars(base)]
    above = [member for member in above if inspect.isfunction(member)]
    is_hook = method.__name__ != "forward" and any(not member.__module__.startswith("scset_tools") for member in above)
    return {
        name for member in (*above, *([method] if is_hook else [])) for name in inspect.signature(member).parameters
    }


def docstring_offences(name: str, obj: object, known: frozenset[str] = frozenset()) -> list[str]:
    """A missing docstring, a placeholder that nothing filled, a parameter without a word; of public methods as well."""
    if not (inspect.isclass(obj) or inspect.isroutine(obj)):
        return []
    doc = inspect.getdoc(obj)
    if not doc:
        return [f"{name}: no docstring"]
    offences = [f"{name}: placeholder {found} left" for found in re.findall(r"%\(\w+\)s?", doc)]
    if not str(getattr(obj, "__module__", "")).startswith("scset_tools.nn"):  # of two clouds, x and y, the same is true
        offences += [f"{name}: one text for {found}" for found in shared_texts(doc)]
    listed = documented_parameters(doc)
    if inspect.isclass(obj):
        listed |= documented_parameters(inspect.getdoc(obj.__init__) or "") | described_fields(obj)
    try:
        parameters = inspect.signature(obj).parameters.values()
    except ValueError:  # enumerations and the like have none
        parameters = ()
    offences += [
        f"{name}: parameter {parameter.name} not documented"
        for parameter in parameters
        if parameter.name not in ("self", "cls", *listed, *known)
        and not parameter.name.startswith("_")
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if inspect.isclass(obj):
        for key, member in vars(obj).items():
            if key.startswith("_") or not (inspect.isroutine(member) or isinstance(member, property)):
                continue
            method = member.fget if isinstance(member, property) else getattr(obj, key)
            # an inherited docstring is judged, if at all, where it stands
            if method.__doc__ or not inspect.getdoc(getattr(obj, key)):
                offences += docstring_offences(f"{name}.{key}", method, frozenset(taken_over(obj, method)))
    return offences


@pytest.mark.parametrize("module", public_modules())
def test_public_names_are_documented(module):
    room = import_module(module)
    offences = [offence for name in room.__all__ for offence in docstring_offences(name, getattr(room, name))]
    assert offences == []


def test_docstring_rule_bites():
    def bare(x): ...

    def placeholder(sample_key):
        """%(param_sample_key)s"""

    def silent(x, y):
        """Add.

        Parameters
        ----------
        x
            A number; `y` is another.
        """

    def shared(low, high, seed):
        """Draw.

        Parameters
        ----------
        low, high
            Smallest and largest value.
        seed, rng
            As of :func:`probe`.
        """

    class Pool:
        """Pool ``width`` columns."""

        def __init__(self, width, dropout_rate): ...

        def forward(self, x):
            """Pool."""

    @dataclass
    class Result:
        """What came out."""

        score: float
        """Between 0 and 1."""
        error: float

    class WidePool(Pool):
        """Pool, `width` and `dropout_rate` given."""

        def forward(self, x, ptr):
            """Pool more."""

    planted = (bare, placeholder, silent, shared, Pool, Result, WidePool)
    found = [offence for obj in planted for offence in docstring_offences(obj.__name__, obj)]
    assert found == [
        "bare: no docstring",
        "placeholder: placeholder %(param_sample_key)s left",
        "placeholder: parameter sample_key not documented",
        "silent: parameter y not documented",
        "shared: one text for low, high",
        "Pool: parameter dropout_rate not documented",
        "Pool.forward: parameter x not documented",
        "Result: parameter error not documented",
        "WidePool.forward: parameter ptr not documented",
    ]


# --- pages of the interface ---------------------------------------------------------------------------------------------


def listed_names(page: str) -> set[str]:
    """Module and name of every entry in the autosummary tables of a page, joined by a dot."""
    names, module, is_table = set(), "", False
    for line in page.splitlines():
        if found := re.match(r"\.\. (?:current)?module:: (\S+)", line):
            module = found[1]
        if line and not line[0].isspace():
            is_table = line.startswith(".. autosummary::")
        elif is_table and (entry := line.strip()) and not entry.startswith(":"):
            names.add(f"{module}.{entry}")
    return names


@pytest.mark.parametrize("module", public_modules())
def test_public_names_are_in_the_api_pages(module):
    listed = set().union(*(listed_names(page.read_text()) for page in API_PAGES.glob("*.md")))
    pages = [getattr(import_module(module), last) for module, _, last in (name.rpartition(".") for name in listed)]
    room = import_module(module)
    # handed on by a second room, an object needs one page only
    missing = [
        name
        for name in room.__all__
        if f"{module}.{name}" not in listed and not any(getattr(room, name) is page for page in pages)
    ]
    assert missing == []


def test_api_page_rule_bites():
    page = (
        "```{eval-rst}\n.. module:: scset_tools.nn\n\n.. autosummary::\n    :toctree: generated\n\n    ISAB\n```\nPMA\n"
    )
    assert listed_names(page) == {"scset_tools.nn.ISAB"}


# --- what the pages show ------------------------------------------------------------------------------------------------


def with_examples() -> list[str]:
    return sorted(module_name(path) for path in SRC.rglob("*.py") if ">>> " in path.read_text())


def failed_examples(module: object) -> tuple[int, int]:
    """How many examples of a module there are, and how many print something else than shown."""
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in doctest.DocTestFinder().find(module):
        runner.run(test)
    return runner.tries, runner.failures


@pytest.mark.parametrize("module", with_examples())
def test_docstring_examples(module):
    tries, failures = failed_examples(import_module(module))
    assert tries > 0
    assert failures == 0


def python_blocks(page: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))


def test_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = python_blocks((ROOT / "README.md").read_text())
    assert "import scset_tools as sst" in code
    exec(compile(code, "README.md", "exec"), {})


def test_the_quick_start_that_is_timed_is_that_of_the_page(monkeypatch):
    """The benchmark takes the page's lines, with another file and other columns; it stops where they are no longer there."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    newcomer = import_module("newcomer")
    page = python_blocks((ROOT / "docs" / "quick_start.md").read_text())
    timed = newcomer.quick_start(Path("kang.h5ad"), "sample_id", "stim", "ind", None)
    compile(timed, "quick start", "exec")
    changed = {line for line in timed.splitlines() if line not in page}
    assert "adata = anndata.read_h5ad('kang.h5ad')" in changed
    assert "sst.MAESTRO.setup_anndata(adata, sample_key='sample_id')" in changed
    assert "result = sst.tl.probe(samples, 'stim', groups_key='ind')" in changed
    assert len(changed) == 8  # these, two imports and three lines that normalise counts
    monkeypatch.setattr(newcomer, "blocks", lambda page: ["import scset_tools as sst\n"])
    with pytest.raises(ValueError, match="no longer has"):
        newcomer.quick_start(Path("a.h5ad"), "sample", "label", None, None)
