"""One page of all sections: styles and script within it, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from scset_tools.reporting import _features, _sections
from scset_tools.reporting._html import Html, clean, join, paragraphs, tag

SECTIONS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], Html | None], tuple[str, ...]], ...] = (
    ("publish", "What may be published", _sections.publishable, ()),
    ("cohort", "What is in the cohort", _sections.cohort, ("cohort", "split")),
    ("scores", "Scores", _sections.scores, ("scores", "chance")),
    ("confounding", "Label or batch", _sections.confounding, ("confounding",)),
    ("maps", "Maps", _sections.maps, ("fit",)),
    ("neighbours", "Neighbours", _sections.neighbours, ("neighbours",)),
    ("health", "Health of the vectors", _sections.health, ()),
    ("attributions", "What moves the scores", _features.attributions, ("trust",)),
)
"""Key, heading and maker of each section, and the first words of the parts whose notes it shows."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""What a browser may load for the page: nothing but what is in it."""


def page(found: Mapping[str, Any]) -> str:
    """The page. The same parts give the same page: it holds no date and no duration.

    Parameters
    ----------
    found
        All parts of a report.
    """
    asked = found["asked"]
    drawn = [(key, title, section(found), _notes(found, of)) for key, title, section, of in SECTIONS]
    made = [(key, title, join([body, notes])) for key, title, body, notes in drawn if body is not None]
    nav = tag("nav", [tag("a", title, href=f"#{key}") for key, title, _ in made], aria_label="Sections")
    body = [tag("section", tag("h2", title), inner, id=key) for key, title, inner in made]
    foot = tag(
        "p",
        f"Made by scset_tools {asked['version']}: ",
        tag("code", asked["call"]),
        *_training(asked["training"]),
        f". Checksum of the cells and the request: {asked['fingerprint']}.",
        class_="soft",
    )
    head = tag(
        "head",
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("title", asked["title"]),
        tag("style", Html(_file("style.css"))),
    )
    readout = tag("div", class_="readout", role="status")
    script = tag("script", Html(_file("script.js")))
    whole = tag(
        "html", head, tag("body", tag("h1", asked["title"]), nav, tag("main", body), foot, readout, script), lang="en"
    )
    return f"<!DOCTYPE html>\n{join([whole])}\n"


def _notes(found: Mapping[str, Any], of: tuple[str, ...]) -> Html | None:
    """What the library warned of."""
    texts = [n for name, part in found.items() if name.split(" ")[0] in of for n in part.get("notes", ())]
    return paragraphs(list(dict.fromkeys(texts))) if texts else None


def plain_title(text: str) -> str:
    """A title that fits the head of a page."""
    return clean(text).strip() or "Cohort report"


def _file(name: str) -> str:
    return resources.files("scset_tools.reporting").joinpath(name).read_text(encoding="utf-8")


def _training(training: dict[str, dict[str, Any]]) -> list[str]:
    """How long models were trained, where that is not their default."""
    said = [
        f"{name} with {', '.join(f'{k}={v!r}' for k, v in arguments.items())}"
        for name, arguments in training.items()
        if arguments
    ]
    return [f". Trained: {'; '.join(said)}"] if said else []
