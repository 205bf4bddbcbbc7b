"""Pieces of a page. Text is escaped unless it is a piece itself, so that no name of a sample can become markup."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

DASH = "–"


class Html(str):
    """Markup that is complete and escaped."""

    __slots__ = ()


def tag(name: str, *children: Any, **attributes: Any) -> Html:
    """An element.

    Parameters
    ----------
    name
        Its name.
    *children
        Markup as it is, anything else as text; None is nothing, a list its items.
    **attributes
        ``class_`` is class, ``data_x`` is data-x; None and False are left out, True stands alone.
    """
    given = ""
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            given += f" {key}"
        elif value is not None and value is not False:
            given += f' {key}="{html.escape(clean(str(value)), quote=True)}"'
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[Any]) -> Html:
    """Pieces one after the other.

    Parameters
    ----------
    children
        As of `tag`.
    """
    out = []
    for child in children:
        if isinstance(child, Html):
            out.append(str(child))
        elif isinstance(child, list | tuple):
            out.append(str(join(child)))
        elif child is not None:
            out.append(html.escape(clean(str(child)), quote=False))
    return Html("".join(out))


def clean(text: str) -> str:
    """Text without characters that no page may hold: controls, halves of surrogate pairs, and marks that turn the writing round."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]", "\ufffd", text)


def number(value: Any, digits: int = 2) -> str:
    """A number for people: a dash where there is none, a true minus sign.

    Parameters
    ----------
    value
        The number.
    digits
        After the point.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return DASH
    if isinstance(value, int):
        return f"{value:,}".replace("-", "\u2212")
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "\u2212")


def p_value(value: Any) -> str:
    """A p-value."""
    if value is None or math.isnan(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def table(
    frame: pd.DataFrame,
    *,
    heads: Mapping[str, str],
    cells: Mapping[str, Callable[[Any], Any]] | None = None,
    caption: Any = None,
    rows: Callable[[int], Mapping[str, Any]] | None = None,
    tall: bool = False,
) -> Html:
    """A table that a click on a heading sorts.

    Parameters
    ----------
    frame
        What to show.
    heads
        Column and its heading, in order.
    cells
        How to write the values of a column. Default: text as it is, numbers with two digits.
    caption
        What it shows.
    rows
        Attributes of the row at a position.
    tall
        Whether it may be long: then it scrolls on a screen, and is whole in print.
    """
    cells = cells or {}
    body = []
    for i, row in enumerate(frame.to_dict("records")):
        written = [_cell(row[column], cells.get(column)) for column in heads]
        body.append(tag("tr", written, **(rows(i) if rows is not None else {})))
    is_number = {column: pd.api.types.is_numeric_dtype(frame[column]) and column not in cells for column in heads}
    head = tag(
        "tr",
        [
            tag("th", tag("button", text, type="button"), scope="col", class_="number" if is_number[column] else None)
            for column, text in heads.items()
        ],
    )
    inner = tag("table", tag("thead", head), tag("tbody", body), class_="sortable")
    return framed(inner, caption, tall=tall)


def framed(inner: Html, caption: Any = None, *, tall: bool = False) -> Html:
    """A table that scrolls within its frame where it is too wide, below its caption, which does not.

    Parameters
    ----------
    inner
        The table.
    caption
        What it shows.
    tall
        As of `table`.
    """
    said = tag("p", caption, class_="soft") if caption is not None else None
    return join([said, tag("div", inner, class_="wide tall" if tall else "wide", tabindex=0)])


def _cell(value: Any, write: Callable[[Any], Any] | None) -> Html:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    key = None
    if is_number:
        key = "" if isinstance(value, float) and math.isnan(value) else repr(value)
    if write is not None:
        shown = write(value)
    elif is_number:
        shown = number(value)
    else:
        shown = DASH if value is None else value
    class_ = "number" if is_number else "long" if isinstance(value, str) and len(value) > 60 else None
    return tag("td", shown, class_=class_, data_v=key)


def paragraphs(texts: Sequence[Any]) -> Html:
    """A list of sentences; nothing without any.

    Parameters
    ----------
    texts
        Sentences.
    """
    return tag("ul", [tag("li", text) for text in texts]) if texts else Html("")


def reason(part: Mapping[str, Any], name: str | None = None) -> Html:
    """Why a part is not there.

    Parameters
    ----------
    part
        Holds the ``reason``.
    name
        What was not computed.
    """
    return tag("p", tag("b", f"{name}: not computed. " if name else "Not computed. "), part["reason"])
