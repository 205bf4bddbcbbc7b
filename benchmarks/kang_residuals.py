"""Why ScSet's counterfactual donors are no nearer to the truth than one shift for all types.

    python benchmarks/kang_residuals.py [--write]

The setting of `conditions.py --part kang --sampler-steps 25`, seed 0, default training. One thing is changed at a time: more generated cells, more steps of the sampler, the true vector of
the stimulated sample in place of the moved one, the donor's own control cells in place of generated ones. Beside them what needs no model, and how well the truth
agrees with itself.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from _quiet import one_quiet_thread
from _results import markdown, write_section
from _timing import hardware_line
from conditions import kang_cells, kang_means, kang_model, kang_split, samples_of, say

N_MANY = 2_000
N_HALVES = 20


def self_agreement(test, cell_type: str, arms: tuple[str, str]) -> float:
    """Mean correlation of the shifts in two halves of the cells of a type."""
    x = pd.DataFrame(test.X.toarray())
    is_type = (test.obs["type"] == cell_type).to_numpy()
    is_arm = [is_type & (test.obs["stim"] == arm).to_numpy() for arm in arms]
    rng, found = np.random.default_rng(0), []
    for _ in range(N_HALVES):
        half = rng.random(len(x)) < 0.5
        a, b = (x[is_arm[1] & h].mean() - x[is_arm[0] & h].mean() for h in (half, ~half))
        found.append(np.corrcoef(a, b)[0, 1])
    return float(np.mean(found))


def rows_of(cells, donor: str) -> list[dict]:
    start = time.process_time()
    control, stimulated = sorted(cells.obs["stim"].unique())
    train, test = kang_split(cells, donor, 0)
    model = kang_model(train, 0, epochs=None)
    mean, types = kang_means(train, test)
    shift = {k: m.xs(stimulated, level="stim") - m.xs(control, level="stim") for k, m in mean.items()}
    overall = shift["train"].loc[types].mean()
    loadings = train.varm["PCs"]
    of_sample = samples_of(test)["stim"].astype(str)
    name = {stim: str(of_sample.index[of_sample == stim][0]) for stim in (control, stimulated)}
    own = {"sample": name[control], "adata": test}
    vectors = model.get_sample_representation(test)
    true_vectors = {stim: {"representation": vectors.loc[[name[stim]]]} for stim in name}

    def made(stim: str, cell_type: str, n: int, n_steps: int = 25, **source) -> np.ndarray:
        asked = {"stim": stim, "type": cell_type}
        return model.sample_cells(n, covariates=asked, n_steps=n_steps, seed=0, **source).X.mean(axis=0)

    found = []
    for cell_type in types:
        true, of_type = shift["test"].loc[cell_type].to_numpy(), shift["train"].loc[cell_type].to_numpy()
        is_own = ((test.obs["type"] == cell_type) & (test.obs["stim"] == control)).to_numpy()
        asked, kept = (made(stim, cell_type, N_MANY, **own) for stim in (stimulated, control))
        by_name = {
            "ScSet, 200 cells": loadings
            @ (made(stimulated, cell_type, 200, **own) - made(control, cell_type, 200, **own)),
            f"ScSet, {N_MANY:,} cells": loadings @ (asked - kept),
            "ScSet, 50 steps of the sampler (the default), 500 cells": loadings
            @ (made(stimulated, cell_type, 500, 50, **own) - made(control, cell_type, 500, 50, **own)),
            "ScSet, 100 steps of the sampler, 500 cells": loadings
            @ (made(stimulated, cell_type, 500, 100, **own) - made(control, cell_type, 500, 100, **own)),
            "ScSet, true vectors of both arms": loadings
            @ (
                made(stimulated, cell_type, N_MANY, **true_vectors[stimulated])
                - made(control, cell_type, N_MANY, **true_vectors[control])
            ),
            "ScSet, less own control cells": loadings @ (asked - test.obsm["X_pca"][is_own].mean(axis=0)),
            "one shift for all types": overall.to_numpy(),
            "shift of the type": of_type,
            "mean of the last two": (overall.to_numpy() + of_type) / 2,
            "training donors' stimulated mean, less own control cells": (
                mean["train"].loc[(cell_type, stimulated)] - mean["test"].loc[(cell_type, control)]
            ).to_numpy(),
        }
        halves = self_agreement(test, cell_type, (control, stimulated))
        for method, guess in by_name.items():
            found.append(
                {
                    "method": method,
                    "donor": donor,
                    "correlation": float(np.corrcoef(guess, true)[0, 1]),
                    "R2": float(1 - ((guess - true) ** 2).sum() / (true**2).sum()),
                    "with the training donors' shift of the type": float(np.corrcoef(guess, of_type)[0, 1]),
                    "halves": halves,
                }
            )
    say(f"donor {donor} ({time.process_time() - start:.0f} s)")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write into benchmarks/RESULTS.md")
    args = parser.parse_args()
    one_quiet_thread()
    cells = kang_cells()
    table = pd.DataFrame([row for donor in sorted(cells.obs["donor"].unique()) for row in rows_of(cells, donor)])
    figures = ["correlation", "R2", "with the training donors' shift of the type"]
    halves = table.drop_duplicates(["donor", "halves"])["halves"].mean()
    whole = 2 * halves / (1 + halves)  # Spearman and Brown: of shifts of all cells
    text = (
        f"Held-out donors of Kang's data, the mean over donors and types; seed 0, default training; 25 steps of the sampler where not said otherwise.\n\n{markdown(table.groupby('method', sort=False)[figures].mean())}\n\n"
        f"Correlation by donor:\n\n{markdown(table.pivot_table(index='method', columns='donor', values='correlation', sort=False))}\n\n"
        f"The true shift of a type agrees with itself at {halves:.3f} between halves of its cells, {whole:.3f} for all of them (Spearman and Brown): a prediction without any error "
        f"would correlate with it at {np.sqrt(whole):.3f}.\n\n{hardware_line()}."
    )
    say(text)
    if args.write:
        write_section("kang-residuals", "ScSet under conditions: what is left of counterfactual donors", text)


if __name__ == "__main__":
    main()
