"""Render `Returns` and `Yields` sections as they are written here: in prose, types stand in the annotation.

Napoleon takes the first line of such a section for a type and tries to link every word of it.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx

SECTIONS = ("Returns", "Yields")


def entries(body: list[str]) -> list[str]:
    """Lines of one field: prose as it is, an entry with an indented text as an item of a list."""
    out: list[str] = []
    for i, line in enumerate(body):
        follows = next((text for text in body[i + 1 :] if text.strip()), "")
        is_head = bool(line) and not line[0].isspace() and follows[:1].isspace() and not re.match(r"[-*] |\d+\. ", line)
        if is_head:
            name, _, type_ = line.partition(" : ")
            out += ["", f"* **{name}**" + (f" ({type_})" if type_ else "") + ":"]
        else:
            out.append(line if not line.startswith("    ") or not out else f"  {line.lstrip()}")
    return out


def rewrite(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turn the sections into a ``:returns:`` field, in place, before Napoleon reads the docstring."""
    i = 0
    while i < len(lines) - 1:
        if lines[i] in SECTIONS and re.fullmatch(r"-{3,}", lines[i + 1]):
            end = next(
                (j for j in range(i + 2, len(lines) - 1) if lines[j] and re.fullmatch(r"-{3,}", lines[j + 1])),
                len(lines),
            )
            field = [f"    {line}".rstrip() for line in entries(lines[i + 2 : end])]
            lines[i:end] = [":returns:", *field, ""]
            i += len(field)
        i += 1


def setup(app: Sphinx) -> dict[str, bool]:
    """Come before Napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", rewrite, priority=400)
    return {"parallel_read_safe": True}
