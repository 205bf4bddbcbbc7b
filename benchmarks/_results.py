"""Write what a benchmark measured into its own section of RESULTS.md, and touch nothing else there."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
HEAD = "# Measured results\n\nEach section is written by the command it names. Ratios carry over to other machines; seconds do not.\n"


def write_section(key: str, title: str, text: str) -> None:
    """Replace (or append) the section between the markers of ``key``; date and command are added."""
    start, end = f"<!-- {key}:start -->", f"<!-- {key}:end -->"
    command = "python " + " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    section = f"{start}\n## {title}\n\n{datetime.datetime.now().astimezone():%Y-%m-%d}, `{command}`\n\n{text.strip()}\n{end}\n"
    document = RESULTS.read_text() if RESULTS.exists() else HEAD
    if start in document:
        before, rest = document.split(start, 1)
        document = before + section + rest.split(end + "\n", 1)[1]
    else:
        document = document.rstrip("\n") + "\n\n" + section
    RESULTS.write_text(document)


def markdown(table: pd.DataFrame, corner: str | None = None) -> str:
    """A table in Markdown with its index first; numbers with three digits. ``corner``: heading of the index."""
    name = corner if corner is not None else (table.index.name or "")
    lines = ["| " + " | ".join([str(name), *map(str, table.columns)]) + " |", "|---" * (len(table.columns) + 1) + "|"]
    for row_name, row in zip(table.index, table.to_numpy(dtype=object), strict=True):
        cells = [f"{v:.3f}" if isinstance(v, float) else str(v) for v in row]
        lines.append("| " + " | ".join([str(row_name), *cells]) + " |")
    return "\n".join(lines)
