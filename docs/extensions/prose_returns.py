"""Read `Returns` sections and attribute docstrings as they are written here: prose, types stand in the annotation.

Napoleon takes the first line of such a section, and what comes before a colon in the docstring of an attribute, for a
type and tries to link every word of it.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import NumpyDocstring


def entries(body: list[str]) -> list[str]:
    """The lines of a section, each entry with an indented text made an item of a list."""
    out: list[str] = []
    for i, line in enumerate(body):
        follows = next((text for text in body[i + 1 :] if text.strip()), "")
        if line and not line[0].isspace() and follows[:1].isspace() and not line.startswith(("* ", "- ")):
            name, _, type_ = line.partition(" : ")
            out += ["", f"* **{name}**" + (f" ({type_})" if type_ else ""), ""]
        elif line[:1].isspace() and any(text.startswith("* **") for text in out):
            out.append(f"  {line.removeprefix('    ')}")
        else:
            out.append(line)
    return out


class ProseDocstring(NumpyDocstring):
    """The two readings of Napoleon that expect a type."""

    def _consume_returns_section(self, *args: Any, **kwargs: Any) -> list[tuple[str, str, list[str]]]:
        return [("", "", entries(self._dedent(self._consume_to_next_section())))]

    def _consume_inline_attribute(self) -> tuple[str, list[str]]:
        return "", self._dedent(self._consume_to_end())


def setup(app: Sphinx) -> dict[str, bool]:
    """Napoleon makes its readers itself, by name: its class gets the two methods."""
    for name in ("_consume_returns_section", "_consume_inline_attribute"):
        setattr(NumpyDocstring, name, getattr(ProseDocstring, name))
    return {"parallel_read_safe": True}
