"""What a newcomer waits for, in processor seconds: `python benchmarks/newcomer.py --data FOLDER [--part quick five readme methods report] [--write]`.

quick: the first block of the quick start, verbatim but for file and columns, on five cohorts; five: fit, probe and report with profiles on them;
readme: README's Python lines; methods: the first answer of each model by its defaults on krieg and kang; report: a whole report with MAESTRO on hiv.
Every line runs in a process of its own, start of Python and imports included. Exit code 1 if one of them fails.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from _results import write_section
from _timing import one_number_of_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
CLI = [sys.executable, "-c", "from scset_tools.cli import main; main()"]
COHORTS = {  # file: sample, label, groups, batch; cell types
    "krieg_melanoma_cytof_imubac": ("sample", "cancer", "donor", "batch", None),
    "kang_ifnb_distinct": ("sample_id", "stim", "ind", None, "cell"),
    "hiv_flow_flowtype": ("sample", "HIV", None, None, None),
    "bcrxl_cytof_bodenmiller_full": ("sample", "condition", "patient", None, None),
    "melanoma_ici_daseq_pca": ("sample", "response", "patient", None, None),
}
TITLES = {
    "quick": "A newcomer's quick start on five cohorts",
    "five": "A newcomer's first answers with profiles",
    "readme": "README's lines",
    "methods": "The first answer of each model by its defaults",
    "report": "A whole report by its defaults",
}
COUNTS = (
    "import scanpy as sc\nsc.pp.filter_cells(adata, min_counts=1)\nsc.pp.normalize_total(adata)\nsc.pp.log1p(adata)\n"
)
Step = tuple[str, list[str]]


def blocks(page: str) -> list[str]:
    """Blocks of Python of a page of Markdown."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def quick_start(path: Path, sample: str, label: str, groups: str | None, batch: str | None) -> str:
    """The first block of the quick start, with a file and columns in place of those of the built-in cohort; counts are normalised first."""
    code = blocks("docs/quick_start.md")[0]
    loaded = f"import anndata\nadata = anndata.read_h5ad({str(path)!r})\n" + (COUNTS if "kang" in path.name else "")
    changes = {
        "adata = sst.datasets.cytometry_cohort()\n": loaded,
        'sample_key="sample", batch_key="batch"': f"sample_key={sample!r}"
        + (f", batch_key={batch!r}" if batch else ""),
        '"condition", groups_key="donor"': f"{label!r}" + (f", groups_key={groups!r}" if groups else ""),
    }
    for old, new in changes.items():
        if old not in code:
            msg = f"The quick start no longer has {old!r}."
            raise ValueError(msg)
        code = code.replace(old, new)
    return code


def steps(part: str, data: Path, out: Path) -> Iterator[Step]:
    """Name and command of what is timed."""
    for cohort, (sample, label, groups, batch, types) in COHORTS.items():
        path, short = data / f"{cohort}.h5ad", cohort.split("_")[0]
        cells = [str(path), "-s", sample]
        grouped = ["--groups-key", groups] if groups else []
        if part == "quick":
            yield (
                f"{short}: quick start, MAESTRO",
                [sys.executable, "-c", quick_start(path, sample, label, groups, batch)],
            )
        elif part == "five":
            vectors = str(out / f"{short}.h5ad")
            yield f"{short}: fit mean", [*CLI, "fit", "mean", *cells, "-o", vectors]
            yield f"{short}: probe", [*CLI, "probe", vectors, label, "--n-repeats", "1", *grouped]
            keys = [
                *grouped,
                *(["--batch-key", batch] if batch else []),
                *(["--cell-type-key", types] if types else []),
            ]
            page = ["-m", "mean", "-m", "kmeans_fractions", "-o", str(out / f"{short}.html")]
            yield f"{short}: report, two profiles", [*CLI, "report", *cells, "--label-key", label, *keys, *page]
        elif part == "methods" and short in ("krieg", "kang"):
            for model in ("maestro", "scset", "pascient", "selfguidedmae"):
                labels = ["--labels-key", label] if model == "pascient" else []
                yield (
                    f"{short}: fit {model}",
                    [*CLI, "fit", model, *cells, *labels, "-o", str(out / f"{short}_{model}.h5ad")],
                )
        elif part == "report" and short == "hiv":
            yield "hiv: report, MAESTRO", [*CLI, "report", *cells, "--label-key", label, "-o", str(out / "hiv.html")]
    if part == "readme":
        yield "README, Python lines", [sys.executable, "-c", "\n".join(blocks("README.md"))]


def timed(name: str, command: list[str]) -> str:
    """Run a command and print its row: processor seconds and exit code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**one_number_of_threads(), "MPLBACKEND": "agg"}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    row = f"| {name} | {seconds:.0f} | {run.returncode} |"
    print(row, flush=True)
    if run.returncode:
        print(run.stderr[-2000:], file=sys.stderr)
    return row


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--part", nargs="+", choices=list(TITLES), default=["five"])
    parser.add_argument("--write", action="store_true", help="write each part into a section of RESULTS.md")
    args = parser.parse_args()
    failed = False
    for part in args.part:
        lines = ["| what | processor s | exit code |", "|---|---|---|"]
        print(*lines, sep="\n")
        with tempfile.TemporaryDirectory() as folder:
            lines += [timed(name, command) for name, command in steps(part, args.data, Path(folder))]
        failed |= any(not line.endswith("| 0 |") for line in lines[2:])
        if args.write:
            write_section(f"newcomer-{part}", TITLES[part], "\n".join(lines))
    sys.exit(failed)


if __name__ == "__main__":
    main()
