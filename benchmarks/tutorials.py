"""What each tutorial costs: ``OMP_NUM_THREADS=1 python benchmarks/tutorials.py [NAME ...] [--write]``.

Every page of ``tutorials/`` is read and run as the documentation does it (MyST-NB's reader, a Jupyter kernel, an empty folder), each in a process of
its own. Processor seconds (user and system) of that process and its kernel: start of Python and imports included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from _results import write_section
from _timing import hardware_line, one_number_of_threads

ROOT = Path(__file__).resolve().parents[1]
ASKED = 90.0
TEXT = f"Asked: each under {ASKED:.0f} s of one core. Start of Python and imports, about 10 s of each, are included."


def names() -> list[str]:
    """Tutorials: the pages with code to run."""
    return sorted(path.stem for path in (ROOT / "tutorials").glob("*.md") if "{code-cell}" in path.read_text())


def run_one(name: str) -> None:
    """Run a tutorial in this process's kernel; an error of a cell is an error here."""
    from myst_nb.core.read import read_myst_markdown_notebook
    from nbclient import NotebookClient

    page = ROOT / "tutorials" / f"{name}.md"
    notebook = read_myst_markdown_notebook(page.read_text(encoding="utf-8"), path=str(page))
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": folder}}).execute()


def seconds(name: str) -> float:
    """Processor seconds of one tutorial, in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**one_number_of_threads(), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    done = subprocess.run([sys.executable, __file__, "--only", name], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table; exit code 1 if one takes longer than asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="tutorials; default: all")
    parser.add_argument("--write", action="store_true", help="write the table into RESULTS.md")
    parser.add_argument("--only", help="run one tutorial in this process")
    args = parser.parse_args()
    if args.only:
        run_one(args.only)
        return
    lines = ["| tutorial | processor s |", "|---|---|"]
    print(*lines, sep="\n")
    taken = {}
    for name in args.names or names():
        taken[name] = seconds(name)
        lines.append(f"| {name} | {taken[name]:.0f} |")
        print(lines[-1], flush=True)
    lines.append(f"| together | {sum(taken.values()):.0f} |")
    print(lines[-1])
    if args.write:
        write_section("tutorials", "What each tutorial costs", "\n".join([hardware_line(), "", TEXT, "", *lines]))
    sys.exit(max(taken.values()) >= ASKED)


if __name__ == "__main__":
    main()
