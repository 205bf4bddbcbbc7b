"""What people type into the search of the documentation stands in a heading, a term of the glossary or a question, with an answer below it."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = [*DOCS.glob("*.md"), *(DOCS / "user_guide").glob("*.md"), *(DOCS.parent / "tutorials").glob("*.md")]


def entries(page: str) -> list[tuple[str, str]]:
    """Headings and terms of definition lists, each with the text up to the next one of its kind or above."""
    lines = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL).splitlines()
    heads = [i for i, line in enumerate(lines) if re.match(r"#+ ", line)]
    found = [(lines[i], "\n".join(lines[i + 1 : end])) for i, end in pairwise([*heads, len(lines)])]
    return found + [(term, answer[2:]) for term, answer in pairwise(lines) if answer.startswith(": ")]


def answers(phrase: str, pages: dict[str, str]) -> list[str]:
    """Pages in which the words of a phrase stand together in a heading or term that has at least twelve words below it."""
    return [
        name
        for name, text in pages.items()
        if any(phrase.lower() in head.lower() and len(body.split()) >= 12 for head, body in entries(text))
    ]


@pytest.mark.parametrize(
    ("phrase", "page"),
    [
        ("FCS", "your_data"),
        ("batch effect", "batch_effects"),
        ("out of memory", "troubleshooting"),
        ("how many cells", "choosing_sizes"),
        ("how many samples", "choosing_sizes"),
        ("how many epochs", "choosing_sizes"),
        ("missing label", "troubleshooting"),
        ("GPU", "installation"),
        ("confounded", "glossary"),
    ],
)
def test_a_search_lands_on_an_answer(phrase, page):
    found = answers(phrase, {path.stem: path.read_text(encoding="utf-8") for path in PAGES})
    assert page in found


def test_the_rule_bites():
    words = "word " * 12
    pages = {
        "heading": f"# One\n\n## Out of memory\n\n{words}",
        "term": f"out of memory\n: {words}\n",
        "empty": "# Out of memory\n\n## Next\n",
        "code": f"```\n# out of memory\n```\n{words}",
        "text": f"# One\n\nout of memory {words}",
    }
    assert answers("out of memory", pages) == ["heading", "term"]
