"""Formulas as MathML, which browsers draw themselves: no script, no font and no network is needed to read a page.

Docutils translates TeX. A formula that it does not understand is a warning, and so an error of the build. It puts the index of a letter with an accent
below the letter; here it is put beside it.
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)
NAMESPACE = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", NAMESPACE)
ACCENTS = set("\u02c6\u02c9\u02dc\u00af\u203e^~\u2192\u02d9\u00a8\u02c7\u02d8\u00b4`_")
"""Hat, bar, tilde, arrow, dots and the like."""


def translated(tex: str, *, as_block: bool) -> str:
    """MathML of a formula.

    Parameters
    ----------
    tex
        What stands between the dollars.
    as_block
        Whether it stands in a line of its own.
    """
    made = tex2mathml(f" {tex} ", as_block=as_block).replace(
        "&ApplyFunction;", "\u2061"
    )  # HTML knows that name, XML does not
    root = ElementTree.fromstring(made)
    for element in root.iter(f"{{{NAMESPACE}}}munderover"):
        base, index, accent = element
        if (accent.text or "").strip() in ACCENTS:
            element.tag = f"{{{NAMESPACE}}}msub"
            over = ElementTree.Element(f"{{{NAMESPACE}}}mover", {"accent": "true"})
            over.extend([base, accent])
            element[:] = [over, index]
    return ElementTree.tostring(root, encoding="unicode")


def write(translator: Any, node: nodes.Element, *, as_block: bool) -> None:
    """Put the formula into the page, or say which one failed."""
    try:
        mathml = translated(node.astext(), as_block=as_block)
    except MathError as error:
        logger.warning("formula %r: %s", node.astext(), error, location=node)
        mathml = f"<code>{translator.encode(node.astext())}</code>"
    tag, class_ = ("div", "math block") if as_block else ("span", "math inline")
    translator.body.append(f'<{tag} class="{class_} notranslate">{mathml}</{tag}>')
    raise nodes.SkipNode


def inline(translator: Any, node: nodes.math) -> None:
    """A formula within a line."""
    write(translator, node, as_block=False)


def block(translator: Any, node: nodes.math_block) -> None:
    """A formula between lines."""
    write(translator, node, as_block=True)


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this; `html_math_renderer` chooses it."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
