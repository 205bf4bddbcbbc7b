"""The gallery: one image per function of `pl` with the call that drew it, made when the pages are built.

`docs/make_gallery.py` draws; this reads its calls from its source, writes `user_guide/gallery/` (not committed) and shows each image on the
page of its function too. Nothing is drawn again while neither the plots nor that script have changed.
"""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
SCRIPT = DOCS / "make_gallery.py"
FOLDER = DOCS / "user_guide" / "gallery"
PLOTS = DOCS.parent / "src" / "scset_tools" / "pl"
DRAWN_ELSEWHERE = "made_up_"
"""Functions of the script that stand for what a model gives; a reader is shown the bare name."""


class _Readable(ast.NodeTransformer):
    """`made_up_steps(cells, rng)` as `steps`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id.startswith(DRAWN_ELSEWHERE):
            return ast.Name(node.func.id.removeprefix(DRAWN_ELSEWHERE))
        return node


@cache  # autodoc asks for each object of the interface
def calls(source: str) -> dict[str, tuple[str, str]]:
    """Function of `pl` -> name of its first image and the call that draws it."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple)):
            continue
        name, drawn = node.value.elts
        for call in ast.walk(drawn):
            if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("pl."):
                function = ast.unparse(call.func).removeprefix("pl.")
                found.setdefault(function, (ast.literal_eval(name), f"sst.{ast.unparse(_Readable().visit(call))}"))
                break
    return found


def page(source: str) -> str:
    """Markdown: heading, call and image of each function."""
    parts = [
        f"### `{function}`\n\n```python\n{call}\n```\n\n![{function}](gallery/{image}.png)\n\nSee {{func}}`scset_tools.pl.{function}`.\n"
        for function, (image, call) in sorted(calls(source).items())
    ]
    return "\n".join(parts)


def make(app: Any) -> None:
    """Draw what has changed and write the page."""
    del app
    state = hashlib.sha256(b"".join(p.read_bytes() for p in [SCRIPT, *sorted(PLOTS.glob("*.py"))])).hexdigest()
    stamp = FOLDER / ".stamp"
    if not stamp.is_file() or stamp.read_text() != state:
        subprocess.run([sys.executable, SCRIPT, FOLDER], check=True, env={**os.environ, "MPLBACKEND": "agg"})
        stamp.write_text(state)
    (FOLDER / "gallery.md").write_text(page(SCRIPT.read_text(encoding="utf-8")), encoding="utf-8")


def show(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """The image below the docstring of its function."""
    del app, obj, options
    function = name.removeprefix("scset_tools.pl.")
    if what != "function" or name == function:
        return
    known = calls(SCRIPT.read_text(encoding="utf-8"))
    if function in known:
        lines += [
            "",
            f".. image:: /user_guide/gallery/{known[function][0]}.png",
            f"   :alt: Example of pl.{function}",
            "",
        ]


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", make)
    app.connect("autodoc-process-docstring", show, priority=900)  # after the sections of the docstring were read
    return {"parallel_read_safe": True, "parallel_write_safe": True}
