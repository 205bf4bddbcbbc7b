"""The demo: samples of real cells in, one vector per sample out, and an honest table of how good it is.

Without arguments: two cohorts resampled from real blood cells (68k PBMC subset that scanpy ships). With ``--cohort``: your own
h5ad file. MAESTRO is trained without labels on the training samples; a classifier on its vectors, and one on the mean
expression of the same samples, then predict the label of held-out samples, which neither has seen.
"""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scvi
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scset_tools as sst
from scset_tools.data._split import split_samples

HELD_OUT_SHARE = 0.3


@dataclass(frozen=True)
class Cohort:
    """Cells, the keys to read them by, and the samples that training does not see."""

    name: str
    adata: ad.AnnData
    sample_key: str
    label_key: str
    held_out: list[str]
    use_rep: str | None = None
    cell_type_key: str | None = None


def built_in_cohorts() -> list[Cohort]:
    """Composition and perturbation cohorts: 24 and 48 samples to train on, 24 made of other cells held out."""
    cohorts = []
    for name, make, n_training in (
        ("composition", sst.datasets.composition_cohort, 24),
        ("perturbation", sst.datasets.perturbation_cohort, 48),
    ):
        train, test = make(n_samples=n_training, pool=(0, 2), rng=0), make(n_samples=24, pool=(1, 2), rng=1)
        for prefix, part in (("train", train), ("test", test)):
            part.obs["sample"] = (prefix + "_" + part.obs["sample"].astype(str)).astype("category")
            part.obs_names = prefix + "_" + part.obs_names
        adata = ad.concat([train, test])
        held_out = sorted(test.obs["sample"].unique())
        cohorts.append(Cohort(name, adata, "sample", "subtype", held_out, None, "cell_type"))
    return cohorts


def own_cohort(args: argparse.Namespace) -> Cohort:
    """A cohort from a file, with the keys given on the command line; exits with a message if it cannot be used."""
    path = Path(args.cohort)
    if not path.is_file():
        sys.exit(f"{path} is no file.")
    try:
        adata = ad.read_h5ad(path)
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"{path} cannot be read as an h5ad file: {error}")
    for option, key in (
        ("SAMPLE_KEY", args.sample_key),
        ("LABEL_KEY", args.label_key),
        ("GROUPS_KEY", args.groups_key),
    ):
        if key is None and option != "GROUPS_KEY":
            sys.exit(f"{option} is missing: name a column of obs. Columns of {path}: {', '.join(adata.obs.columns)}.")
        if key is not None and key not in adata.obs:
            sys.exit(f"{option}={key} is not a column of obs. Columns of {path}: {', '.join(adata.obs.columns)}.")
    if args.use_rep is not None and args.use_rep not in adata.obsm:
        sys.exit(f"USE_REP={args.use_rep} is not in obsm. Keys of {path}: {', '.join(adata.obsm) or 'none'}.")
    adata = adata[adata.obs[args.label_key].notna().to_numpy() & adata.obs[args.sample_key].notna().to_numpy()].copy()
    per_sample = adata.obs.groupby(args.sample_key, observed=True)
    labels = per_sample[args.label_key].first()
    groups = None if args.groups_key is None else per_sample[args.groups_key].first().astype(str).to_numpy()
    if labels.nunique() < 2:
        sys.exit(
            f"LABEL_KEY={args.label_key} has one value only: {', '.join(map(str, labels.unique()))}. Nothing to predict."
        )
    try:
        _, test, _ = split_samples(
            len(labels), 1 - HELD_OUT_SHARE, groups=groups, strata=labels.astype(str).to_numpy(), rng=0
        )
    except ValueError as error:
        sys.exit(str(error))
    return Cohort(
        path.stem, adata, args.sample_key, args.label_key, [str(s) for s in labels.index[test]], use_rep=args.use_rep
    )


def embed(cohort: Cohort, out: Path, *, max_epochs: int | None) -> tuple[ad.AnnData, sst.MAESTRO]:
    """Train MAESTRO on the training samples and embed all; writes the sample-level h5ad."""
    key = cohort.sample_key
    is_training = ~cohort.adata.obs[key].astype(str).isin(cohort.held_out).to_numpy()
    training = cohort.adata[is_training].copy()
    sst.MAESTRO.setup_anndata(training, key, use_rep=cohort.use_rep)
    model = sst.MAESTRO(training, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is not trained")  # on purpose: the control
        untrained = model.get_sample_representation(cohort.adata)
    print(
        f"\n{cohort.name}: training MAESTRO on {len(model.sample_names)} samples, {training.n_obs} cells, without labels",
        flush=True,
    )
    model.train(max_epochs, seed=0, enable_progress_bar=sys.stdout.isatty())
    samples = model.to_sample_adata(cohort.adata)
    samples.obs["is_held_out"] = np.isin(samples.obs_names, cohort.held_out)
    samples.obsm["X_untrained"] = untrained.loc[samples.obs_names].to_numpy()
    mean = sst.profiles.mean(cohort.adata, sample_key=key, use_rep=cohort.use_rep)
    samples.obsm["X_mean"] = mean[samples.obs_names].X
    samples.uns["health"] = str(sst.tl.representation_health(model))
    print(samples.uns["health"], flush=True)
    samples.write_h5ad(out / f"{cohort.name}_samples.h5ad")
    return samples, model


def evaluate(samples: ad.AnnData, cohort: Cohort) -> pd.DataFrame:
    """Accuracy of the nearest training sample and weighted F1 of a logistic regression, on the held-out samples."""
    label = samples.obs[cohort.label_key].astype(str).to_numpy()
    test = samples.obs["is_held_out"].to_numpy()
    rows = []
    for name, key in (
        ("MAESTRO", "X_maestro"),
        ("MAESTRO, untrained", "X_untrained"),
        ("mean expression", "X_mean"),
    ):
        x = samples.obsm[key]
        nearest = make_pipeline(StandardScaler(), KNeighborsClassifier(1)).fit(x[~test], label[~test]).predict(x[test])
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(x[~test], label[~test])
        f1 = f1_score(label[test], linear.predict(x[test]), average="weighted")
        rows.append((name, accuracy_score(label[test], nearest), f1))
    share = {part: pd.Series(label[is_part]).value_counts(normalize=True) for part, is_part in ((0, ~test), (1, test))}
    chance = float(
        (share[0] * share[1]).sum()
    )  # a guess with the frequencies of the training samples is right this often
    rows.append(("chance", chance, chance))
    table = pd.DataFrame(rows, columns=["representation", "nearest neighbour accuracy", "logistic weighted F1"])
    table.insert(0, "cohort", cohort.name)
    return table


def draw(samples: ad.AnnData, model: sst.MAESTRO, cohort: Cohort, out: Path) -> None:
    """Figures: maps of the held-out samples over a sentence on their health, history, reconstruction, attention per cell type."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    held_out = samples[samples.obs["is_held_out"]].copy()
    titles = ("MAESTRO", "MAESTRO, untrained", "mean expression")
    for ax, key, title in zip(axes, ("X_maestro", "X_untrained", "X_mean"), titles, strict=True):
        sst.pl.sample_map(held_out, color=cohort.label_key, use_rep=key, ax=ax)
        ax.set_title(title)
        if ax is not axes[-1]:
            ax.get_legend().remove()
    figure.supxlabel(
        "\n".join(textwrap.wrap(f"MAESTRO on its training samples: {samples.uns['health']}", 150)), fontsize=9
    )
    save(figure, out / f"{cohort.name}_samples.png")
    save(sst.pl.training_history(model).figure, out / f"{cohort.name}_history.png")
    cells = model.reconstruct(cohort.held_out[:3], adata=cohort.adata)
    save(np.ravel(sst.pl.reconstruction(cells, basis="pca"))[0].figure, out / f"{cohort.name}_reconstruction.png")
    if cohort.cell_type_key is not None:
        model.annotate_attention(cohort.adata)
        ax = sst.pl.attention(cohort.adata, groupby=cohort.cell_type_key)
        save(ax.figure, out / f"{cohort.name}_attention.png")


def save(figure: plt.Figure, path: Path) -> None:
    """Write a figure and forget it."""
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", help="h5ad file of your own (default: two built-in cohorts)")
    parser.add_argument("--sample-key", help="column of obs with the sample of each cell")
    parser.add_argument("--label-key", help="column of obs with the label to predict, one value per sample")
    parser.add_argument("--use-rep", help="key of obsm to use instead of X")
    parser.add_argument("--groups-key", help="column of obs with the donor or study; a group is never cut")
    parser.add_argument(
        "--max-epochs",
        type=int,
        help="epochs of training (default: those of MAESTRO.train)",
    )
    parser.add_argument("--out", type=Path, default=Path("demo/output"), help="folder for the results")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    scvi.settings.verbosity = logging.ERROR
    warnings.filterwarnings("ignore", module="lightning")
    args.out.mkdir(parents=True, exist_ok=True)
    cohorts = [own_cohort(args)] if args.cohort else built_in_cohorts()
    tables = []
    for cohort in cohorts:
        try:
            samples, model = embed(cohort, args.out, max_epochs=args.max_epochs)
        except (KeyError, ValueError, TypeError) as error:
            sys.exit(str(error.args[0] if error.args else error))
        tables.append(evaluate(samples, cohort))
        draw(samples, model, cohort, args.out)
    table = pd.concat(tables, ignore_index=True)
    table.to_csv(args.out / "results.csv", index=False)
    print(f"\nOn held-out samples ({len(cohorts[0].held_out)} in the first cohort):\n")
    print(table.to_string(index=False, float_format="%.2f"))
    print(f"\nWritten to {args.out}: {', '.join(sorted(p.name for p in args.out.iterdir()))}")


if __name__ == "__main__":
    main()
