"""What a newcomer waits for, in processor seconds: `python benchmarks/newcomer.py --data FOLDER [--part five report readme methods]`.

five: fit, probe and report with profiles on five cohorts; report: a whole report with MAESTRO on hiv; readme: README's Python lines; methods: the
first answer of each model by its defaults on krieg and kang. Every line runs in a process of its own, start of Python and imports included.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLI = [sys.executable, "-c", "from scset_tools.cli import main; main()"]
COHORTS = {  # file: sample, label, further columns of probe and report, of report alone
    "krieg_melanoma_cytof_imubac": ("sample", "cancer", ["--groups-key", "donor"], ["--batch-key", "batch"]),
    "kang_ifnb_distinct": ("sample_id", "stim", ["--groups-key", "ind"], ["--cell-type-key", "cell"]),
    "hiv_flow_flowtype": ("sample", "HIV", [], []),
    "melanoma_ici_daseq_pca": ("sample", "response", ["--groups-key", "patient"], []),
    "ipf_lung_idesc": ("subject", "disease", [], []),
}


def timed(name: str, command: list[str]) -> None:
    """Run a command and print one row: its processor seconds and exit code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "MPLBACKEND": "agg"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"| {name} | {seconds:.0f} | {run.returncode} |", flush=True)
    if run.returncode:
        print(run.stderr[-500:], file=sys.stderr)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--part", nargs="+", choices=("five", "report", "readme", "methods"), default=["five"])
    args = parser.parse_args()
    print("| what | processor s | exit code |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for cohort, (sample, label, both, alone) in COHORTS.items() if "five" in args.part else ():
            cells, vectors = str(args.data / f"{cohort}.h5ad"), str(out / f"{cohort}.h5ad")
            page = ["-m", "mean", "-m", "kmeans_fractions", "-o", str(out / f"{cohort}.html")]
            timed(f"{cohort}: fit mean", [*CLI, "fit", "mean", cells, "-s", sample, "-o", vectors])
            timed(f"{cohort}: probe", [*CLI, "probe", vectors, label, "--n-repeats", "1", *both])
            keys = ["-s", sample, "--label-key", label, *both, *alone]
            timed(f"{cohort}: report, profiles", [*CLI, "report", cells, *keys, *page])
        if "report" in args.part:
            keys = ["-s", "sample", "--label-key", "HIV", "-o", str(out / "hiv.html")]
            timed("hiv: report, MAESTRO", [*CLI, "report", str(args.data / "hiv_flow_flowtype.h5ad"), *keys])
        if "readme" in args.part:
            text = (ROOT / "README.md").read_text()
            code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
            timed("README, Python lines", [sys.executable, "-c", code])
        for cohort in ("krieg_melanoma_cytof_imubac", "kang_ifnb_distinct") if "methods" in args.part else ():
            sample, label, *_ = COHORTS[cohort]
            for model in ("maestro", "scset", "pascient", "selfguidedmae"):
                labels = ["--labels-key", label] if model == "pascient" else []
                options = ["-s", sample, *labels, "-o", str(out / f"{cohort}_{model}.h5ad")]
                timed(f"{cohort}: fit {model}", [*CLI, "fit", model, str(args.data / f"{cohort}.h5ad"), *options])


if __name__ == "__main__":
    main()
