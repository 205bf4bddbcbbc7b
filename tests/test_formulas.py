"""Formulas of the documentation are drawn without a network: as MathML, which the build makes of all of them."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

pytest.importorskip("sphinx")
from docutils import nodes

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("mathml", ROOT / "docs" / "extensions" / "mathml.py")
mathml = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mathml)

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "tutorials").glob("*.md"), *(ROOT / "docs").glob("*.md")]
PAGES += [*(ROOT / "docs" / "api").glob("*.md"), *(ROOT / "docs" / "user_guide").glob("*.md")]


def formulas(text: str) -> list[str]:
    """What stands between dollars in Markdown, code left out."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    return [a or b for a, b in re.findall(r"\$\$(.+?)\$\$|\$([^$]+?)\$", text, flags=re.DOTALL)]


def rendered(node: nodes.Element, *, as_block: bool) -> str:
    translator = SimpleNamespace(body=[], encode=lambda text: text)
    with contextlib.suppress(nodes.SkipNode):
        (mathml.block if as_block else mathml.inline)(translator, node)
    return "".join(translator.body)


def test_every_formula_is_translated():
    found = [(page.name, tex) for page in PAGES for tex in formulas(page.read_text(encoding="utf-8"))]
    for path in (ROOT / "src").rglob("*.py"):
        found += [
            (path.name, tex.replace("\\\\", "\\")) for tex in re.findall(r":math:`([^`]+)`", path.read_text("utf-8"))
        ]
    assert len(found) > 200
    for _, tex in found:
        ElementTree.fromstring(mathml.translated(tex, as_block=False))  # raises where TeX is unknown


def test_a_fraction_by_hand():
    """Elements and their order are those of MathML's own definition of a fraction."""
    tree = ElementTree.fromstring(mathml.translated(r"\frac{a}{2}", as_block=True))
    names = [element.tag.rpartition("}")[2] for element in tree.iter()]
    assert names == ["math", "mfrac", "mi", "mn"]
    assert [text for text in (element.text.strip() for element in tree.iter() if element.text) if text] == ["a", "2"]
    assert tree.get("display") == "block"


@pytest.mark.parametrize("tex", [r"\hat x_j", r"\bar\alpha_t", r"\tilde{x}_{ij}"])
def test_the_index_of_a_letter_with_an_accent_stands_beside_it(tex):
    tree = ElementTree.fromstring(mathml.translated(tex, as_block=False))
    names = [element.tag.rpartition("}")[2] for element in tree.iter()]
    assert names[:3] == ["math", "msub", "mover"]
    assert "munderover" not in names


def test_limits_stay_where_they_are():
    assert "munderover" in mathml.translated(r"\sum_{i=1}^n x_i", as_block=True)


def test_a_formula_is_put_into_the_page():
    html = rendered(nodes.math(text="x < y"), as_block=False)
    assert html.startswith('<span class="math inline notranslate"><math')
    assert "&lt;" in html
    assert rendered(nodes.math_block(text="x"), as_block=True).startswith('<div class="math block notranslate"><math')


def test_what_is_not_understood_stays_readable():
    html = rendered(nodes.math(text=r"\nonsense x"), as_block=False)
    assert r"<code>\nonsense x</code>" in html


def test_pages_load_no_script_for_formulas():
    text = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    assert 'html_math_renderer = "mathml"' in text
    assert "sphinx.ext.mathjax" not in text
