"""Write what a benchmark measured into its own section of RESULTS.md, and touch nothing else there."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

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
