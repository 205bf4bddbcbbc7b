"""SelfGuidedMAE on the pancreas cohort: self-guided against random masking, cell types of unseen donors, masking frequency.

    python benchmarks/gene_mae_pancreas.py --part compare     # five donor folds x five seeds x masks x ratios (restartable)
    python benchmarks/gene_mae_pancreas.py --part strict --seeds 1  # pretraining on the training donors of each fold alone
    python benchmarks/gene_mae_pancreas.py --part baselines   # on the same folds: logistic regression on genes and on PCA
    python benchmarks/gene_mae_pancreas.py --part untrained   # the same network with random weights, fine-tuned
    python benchmarks/gene_mae_pancreas.py --part scvi --seeds 1    # logistic regression on scVI's latents
    python benchmarks/gene_mae_pancreas.py --part scale       # the default preset, 20 epochs, 2 threads; masking frequency
    python benchmarks/gene_mae_pancreas.py --part random      # the masking frequency of random masks
    python benchmarks/gene_mae_pancreas.py --part enrichment  # gene families among the genes masked most (Fig. 3)
    python benchmarks/gene_mae_pancreas.py --part report      # tables from what is on disk; figures with --figures DIR

Every finished run is a line of gene_mae_pancreas.csv at once, and a run that is there is not repeated. In `compare`
genes are chosen and models pretrained, without labels, on the cells of all donors, once per seed; folds of donors part the labels. In
`strict` the training donors alone are used for everything. The cohort is read from ../shared/data or
$SCSET_TOOLS_DATA.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from _timing import hardware_line, peak_bytes, print_table
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scset_tools as sst
from scset_tools.data._cells import MixedCellDataset
from scset_tools.model.selfguided._finetune import cell_type_codes, fit_head
from scset_tools.tl._intervals import paired_difference, t_interval

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("SCSET_TOOLS_DATA", HERE.parents[1] / "shared" / "data"))
DONOR, TYPE = "donor_id", "Curated_annotation"
SMALL = {
    "n_hidden": 32,
    "n_layers": 2,
    "n_heads": 2,
    "n_ff": 64,
    "n_bins": 16,
    "n_latents": 16,
    "n_latent_hidden": 32,
    "n_latent_heads": 2,
    "n_decoder_hidden": 32,
    "n_decoder_heads": 2,
    "pool": "max",
}
PRETRAIN = {"max_epochs": 30, "batch_size": 64, "n_cells": 100, "plan_kwargs": {"lr": 1e-3}}
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
FINETUNE = {
    "linear_probe": {"lr": 3e-3},
    "partial": {"lr": 3e-3, "max_epochs": 3, "batch_size": 64, **QUIET},
}
N_GENES = 500


def cohort() -> ad.AnnData:
    """Counts of 3,274 cells of 20 donors, with logarithms of normalised counts in a layer."""
    adata = ad.read_h5ad(DATA / "pancreas_atlas_hormone2cell.h5ad")
    adata.layers["log"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4, layer="log")
    sc.pp.log1p(adata, layer="log")
    return adata


def folds(adata: ad.AnnData, seed: int) -> list[tuple[list[str], list[str], list[str]]]:
    """Training, validation and test donors of five folds; donors stratified by study."""
    donors = adata.obs.groupby(DONOR, observed=True)["study"].first().astype(str)
    out = []
    for rest, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(donors.index, donors):
        validation = np.random.default_rng((seed, len(out))).choice(rest, 2, replace=False)
        train = np.setdiff1d(rest, validation)
        out.append(tuple([str(d) for d in donors.index[part]] for part in (train, validation, test)))
    return out


def of_fold(adata: ad.AnnData, parts: tuple[list[str], ...], n_genes: int = N_GENES) -> ad.AnnData:
    """The genes that vary most among the training donors, and the cells that express two of them or more."""
    train = adata[adata.obs[DONOR].isin(parts[0])].copy()
    train.X = train.layers["log"]
    sc.pp.filter_genes(train, min_cells=3)
    sc.pp.highly_variable_genes(train, n_top_genes=n_genes, batch_key="study")
    genes = train.var_names[train.var["highly_variable"]]
    out = adata[:, genes].copy()
    sc.pp.filter_cells(out, min_genes=2)
    return out


def scores(adata: ad.AnnData, parts: tuple[list[str], ...], predicted: np.ndarray) -> dict[str, float]:
    is_test = adata.obs[DONOR].isin(parts[2]).to_numpy()
    truth, predicted = adata.obs[TYPE].astype(str).to_numpy()[is_test], np.asarray(predicted)[is_test].astype(str)
    present = np.unique(truth)  # a type that no test donor has cannot be recalled, and counts as no failure
    return {
        "macro_f1": f1_score(truth, predicted, average="macro", labels=present, zero_division=0),
        "weighted_f1": f1_score(truth, predicted, average="weighted", labels=present, zero_division=0),
        "accuracy": accuracy_score(truth, predicted),
        "n_test": int(is_test.sum()),
    }


class Table:
    """Results on disk, one line per finished run."""

    columns = ("seed", "fold", "method", "mask_rate", "pretraining", "mode")

    def __init__(self, path: Path) -> None:
        self.path = path
        done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(self.columns))
        self.done = {self._key(row) for row in done[list(self.columns)].itertuples(index=False)}

    @staticmethod
    def _key(values: Iterable[object]) -> tuple[str, ...]:
        """A number is the same key whether it was read as whole or as real."""
        return tuple(f"{v:g}" if isinstance(v, int | float) else str(v) for v in values)

    def has(self, *key: object) -> bool:
        return self._key(key) in self.done

    def add(self, *key: object, **values: float) -> None:
        row = pd.DataFrame([{**dict(zip(self.columns, key, strict=True)), **values}])
        row.to_csv(self.path, mode="a", header=not self.path.exists(), index=False)
        self.done.add(self._key(key))
        print(*key, {k: round(v, 3) for k, v in values.items()}, flush=True)


def built(adata: ad.AnnData, seed: int, **build: object) -> sst.SelfGuidedMAE:
    sst.SelfGuidedMAE.setup_anndata(adata, DONOR, layer="log")
    return sst.SelfGuidedMAE(adata, values="normalized", random_state=seed, **{**SMALL, **build})


def partially_finetuned(
    model: sst.SelfGuidedMAE, adata: ad.AnnData, parts: tuple[list[str], ...], seed: int
) -> dict[str, float]:
    start = time.process_time()
    model.finetune(TYPE, "partial", seed=seed, external_indexing=parts, **FINETUNE["partial"])
    test = adata[adata.obs[DONOR].isin(parts[2])].copy()
    out = scores(test, parts, model.predict_cell_types(test).to_numpy())
    return {**out, "finetune_s": time.process_time() - start}


def probed(vectors: torch.Tensor, adata: ad.AnnData, parts: tuple[list[str], ...], seed: int) -> dict[str, float]:
    """``finetune(mode="linear_probe")``, with the vectors of the frozen encoder computed once for all folds."""
    start = time.process_time()
    codes, classes = cell_type_codes(adata, TYPE)
    train, validation = (np.flatnonzero(adata.obs[DONOR].isin(part)) for part in parts[:2])
    sizes = {"n_classes": len(classes), "batch_size": 256, "max_epochs": 100, "patience": 5}
    head, _ = fit_head(
        vectors,
        codes,
        train=train,
        validation=validation,
        seed=seed,
        weight_decay=5e-4,
        **sizes,
        **FINETUNE["linear_probe"],
    )
    with torch.no_grad():
        predicted = classes[head(vectors).argmax(1).numpy()]
    return {**scores(adata, parts, predicted), "finetune_s": time.process_time() - start}


def finetune_in_folds(
    model: sst.SelfGuidedMAE,
    adata: ad.AnnData,
    table: Table,
    key: tuple,
    spent: dict[str, float],
    only: int | None = None,
) -> None:
    """Probe and partial fine-tuning in each fold, always from the same pretrained weights."""
    seed = key[0]
    weights = {k: v.clone() for k, v in model.module.state_dict().items()}
    vectors = torch.from_numpy(model.get_cell_representation().to_numpy())
    for fold, parts in enumerate(folds(adata, seed)):
        if only is not None and fold != only:
            continue
        run = (seed, fold, *key[1:])
        if not table.has(*run, "linear_probe"):
            table.add(*run, "linear_probe", **probed(vectors, adata, parts, seed), **spent)
        if not table.has(*run, "partial"):
            table.add(*run, "partial", **partially_finetuned(model, adata, parts, seed), **spent)
            model.module.head = None
            model.module.load_state_dict(weights)


def compare(adata: ad.AnnData, table: Table, seeds: range, ratios: list[float]) -> None:
    """Pretrain once per seed, mask and ratio on the cells of all donors, without labels; fine-tune in folds of donors."""
    cells = of_fold(adata, (list(adata.obs[DONOR].unique()),))
    for seed in seeds:
        for ratio in ratios:
            for masking in ("self_guided", "random"):
                key = (seed, masking, ratio, "all donors")
                if all(table.has(seed, fold, *key[1:], mode) for mode in FINETUNE for fold in range(5)):
                    continue
                model = built(cells, seed, masking=masking, mask_rate=ratio)
                start = time.process_time()
                model.train(train_size=1.0, seed=seed, **PRETRAIN, **QUIET)
                spent = {"train_s": time.process_time() - start, "loss": float(model.history["loss_train"].iloc[-1, 0])}
                finetune_in_folds(model, cells, table, key, spent)


def strict(adata: ad.AnnData, table: Table, seeds: range, ratios: list[float]) -> None:
    """The same with genes chosen and pretraining done on the training donors of each fold alone."""
    for seed in seeds:
        for fold, parts in enumerate(folds(adata, seed)):
            for ratio in ratios:
                for masking in ("self_guided", "random"):
                    key = (seed, masking, ratio, "training donors")
                    if all(table.has(seed, fold, *key[1:], mode) for mode in FINETUNE):
                        continue
                    cells = of_fold(adata, parts)
                    model = built(cells, seed, masking=masking, mask_rate=ratio)
                    start = time.process_time()
                    model.train(external_indexing=parts, seed=seed, **PRETRAIN, **QUIET)
                    spent = {
                        "train_s": time.process_time() - start,
                        "loss": float(model.history["loss_train"].iloc[-1, 0]),
                    }
                    finetune_in_folds(model, cells, table, key, spent, only=fold)


def baselines(adata: ad.AnnData, table: Table, seeds: range) -> None:
    """Linear models on the genes and folds of ``compare``."""
    cells = of_fold(adata, (list(adata.obs[DONOR].unique()),))
    x, y = cells.layers["log"].toarray(), cells.obs[TYPE].astype(str).to_numpy()
    for seed in seeds:
        linear = {
            "logistic on genes": LogisticRegression(max_iter=200),
            "PCA + logistic": make_pipeline(
                PCA(50, random_state=seed), StandardScaler(), LogisticRegression(max_iter=200)
            ),
        }
        for fold, parts in enumerate(folds(cells, seed)):
            is_train = cells.obs[DONOR].isin([*parts[0], *parts[1]]).to_numpy()
            for name, estimator in linear.items():
                if not table.has(seed, fold, name, 0, "-", "-"):
                    start = time.process_time()
                    predicted = estimator.fit(x[is_train], y[is_train]).predict(x)
                    seconds = time.process_time() - start
                    table.add(seed, fold, name, 0, "-", "-", **scores(cells, parts, predicted), finetune_s=seconds)


def untrained(adata: ad.AnnData, table: Table, seeds: range) -> None:
    """The network of ``compare`` with random weights, fine-tuned in the same way."""
    cells = of_fold(adata, (list(adata.obs[DONOR].unique()),))
    for seed in seeds:
        model = built(cells, seed)
        model.is_trained_ = True  # of a control with random weights it is known
        finetune_in_folds(model, cells, table, (seed, "untrained", 0, "none"), {})


def scvi_baseline(adata: ad.AnnData, table: Table, seeds: range) -> None:
    """Logistic regression on scVI's latents; scVI is trained on the training donors."""
    cells = of_fold(adata, (list(adata.obs[DONOR].unique()),))
    y = cells.obs[TYPE].astype(str).to_numpy()
    for seed in seeds:
        for fold, parts in enumerate(folds(cells, seed)):
            key = (seed, fold, "scVI + logistic", 0, "training donors", "-")
            if not table.has(*key):
                is_train = cells.obs[DONOR].isin([*parts[0], *parts[1]]).to_numpy()
                start = time.process_time()
                z = scvi_latents(cells, is_train)
                estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
                predicted = estimator.fit(z[is_train], y[is_train]).predict(z)
                seconds = time.process_time() - start
                table.add(*key, **scores(cells, parts, predicted), finetune_s=seconds)


def scvi_latents(cells: ad.AnnData, is_train: np.ndarray) -> np.ndarray:
    """Latent means of an scVI model of the training donors' counts; no batch key: test donors are batches of their own."""
    import scvi

    scvi.settings.seed = 0
    train = cells[is_train].copy()
    scvi.model.SCVI.setup_anndata(train)
    model = scvi.model.SCVI(train, n_latent=20)
    model.train(max_epochs=30, train_size=1.0, accelerator="cpu", enable_progress_bar=False)
    every = cells.copy()
    return model.get_latent_representation(every)


def frequency(adata: ad.AnnData, *, masking: str, n_epochs: int, n_threads: int) -> None:
    """Masking frequency of the default preset on 2,000 genes; with self-guided masks this trains it, and takes the time."""
    torch.set_num_threads(n_threads)
    cells = of_fold(adata, (list(adata.obs[DONOR].unique()),), n_genes=2000)
    sst.SelfGuidedMAE.setup_anndata(cells, DONOR, layer="log")
    preset = sst.SelfGuidedMAE.preset("default")
    model = sst.SelfGuidedMAE(cells, values="normalized", masking=masking, random_state=0, **preset.model)
    x = cells.layers["log"]
    print(f"{cells.n_obs} cells x {cells.n_vars} genes, density {x.nnz / np.prod(x.shape):.3f}; {hardware_line()}")
    start, spent = time.perf_counter(), time.process_time()
    if masking == "self_guided":
        model.train(n_epochs, train_size=1.0, seed=0, **preset.train, **QUIET)
        loss = model.history["loss_train"].iloc[:, 0]
        wall, spent = time.perf_counter() - start, time.process_time() - spent
        print(
            f"{n_epochs} epochs on {n_threads} threads: {wall:.0f} s wall, {spent:.0f} s processor, peak "
            f"{peak_bytes() / 2**30:.2f} GiB; loss {loss.iloc[0]:.3f} -> {loss.iloc[-1]:.3f}; load {os.getloadavg()[0]:.1f}"
        )
    else:  # random masks depend on no weights: counting them needs no training
        for epoch in range(n_epochs):
            batch = MixedCellDataset(model.adata_manager, seed=epoch).cells(np.arange(cells.n_obs), epoch)
            tokens = model.module.tokens(batch)
            model.module.counts.add(tokens, model.module.hide(tokens, None, batch.seed), n_cells=batch.n_cells)
    table = model.get_masking_frequency()
    table["mean_expression"] = np.asarray(x.mean(0)).ravel()
    table["mean_where_expressed"] = np.asarray(x.sum(0)).ravel() / np.maximum(x.getnnz(0), 1)
    table.round(6).to_csv(HERE / f"gene_mae_frequency_{masking}.csv")


FAMILIES = {
    "ribosomal proteins": r"RP[LS]\d+[AXYL]?\d*$|RPSA$|RPLP\d$",
    "mitochondrial genome": r"MT-",
    "HLA": r"HLA-|B2M$|CD74$",
    "collagens": r"COL\d+A\d+$",
    "keratins": r"KRT\d+[A-Z]?$",
    "hormones of the islets": r"(INS|GCG|SST|PPY|GHRL|IAPP|TTR|CHGA|CHGB|SCG[235]|PCSK1N?|PCSK2)$",
    "enzymes of acini": r"(PRSS[123]|CTR[BCL]\d?|CEL\w*|CELA\d[AB]?|CPA[12]|CPB1|PNLIP\w*|CLPS|AMY\w+|REG[13][ABG]?|SPINK1|CUZD1|GP2)$",
    "heat shock proteins": r"HSP[ABDEH]\w*$|DNAJ[AB]\w*$",
    "metallothioneins": r"MT[12][A-Z]$",
    "chemokines": r"C[XC]?CL\d+$",
    "fos, jun, egr": r"(FOS[BL]?\d?|JUN[BD]?|EGR\d|ATF3|IER[23])$",
}
"""Gene families by the symbols that the HUGO Gene Nomenclature Committee gives them, and two lists of the pancreas."""


def enrichment() -> None:
    """Families among the hundred genes masked most, of those that 200 visits or more found expressed."""
    rows = []
    for masking in ("self_guided", "random"):
        table = pd.read_csv(HERE / f"gene_mae_frequency_{masking}.csv", index_col=0)
        table = table[table["times_expressed"] >= 200]
        sets = {name: table.index[table.index.str.match(pattern)].tolist() for name, pattern in FAMILIES.items()}
        for count in ("times_masked", "share_masked_expressed"):
            found = sst.tl.enrichment(table[count], sets, n_top=100, min_size=3)
            for _, f in found[found["p_adjusted"] <= 0.05].iterrows():
                share = f"{f['n_overlap']} of {f['n_set']}"
                rows.append(
                    [
                        masking,
                        count,
                        f["gene_set"],
                        share,
                        f"{f['fold']:.1f}",
                        f"{f['p_adjusted']:.1e}",
                        f["genes"][:60],
                    ]
                )
            if not (found["p_adjusted"] <= 0.05).any():
                rows.append([masking, count, f"none of {len(found)}", "", "", f"{found['p_adjusted'].min():.2f}", ""])
    print_table(["masking", "the 100 most by", "family at 5 % FDR", "genes", "fold", "adjusted p", "first"], rows)


def report(path: Path, figures: Path | None) -> None:
    """Tables of means with intervals, paired tests, and Spearman correlations of the masking frequency."""
    runs = pd.read_csv(path)
    ratio_of_test = 4 / 16  # donors; Nadeau and Bengio's variance
    rows = []
    for (method, rate, pretraining, mode), part in runs.groupby(["method", "mask_rate", "pretraining", "mode"]):
        low, high = t_interval(part["macro_f1"].to_numpy(), test_train_ratio=ratio_of_test)
        low_w, high_w = t_interval(part["weighted_f1"].to_numpy(), test_train_ratio=ratio_of_test)
        rows.append(
            [
                method,
                rate or "-",
                pretraining,
                mode,
                f"{part['macro_f1'].mean():.3f} [{low:.3f}, {high:.3f}]",
                f"{part['weighted_f1'].mean():.3f} [{low_w:.3f}, {high_w:.3f}]",
                len(part),
            ]
        )
    print_table(["method", "mask ratio", "pretraining", "mode", "macro F1 [95 %]", "weighted F1 [95 %]", "runs"], rows)
    print()
    runs = runs.set_index(["method", "pretraining", "mode", "mask_rate", "seed", "fold"]).sort_index()
    rows = []
    done = [{key[1:4] for key in runs.loc[[masking]].index} for masking in ("self_guided", "random")]
    for pretraining, mode, rate in sorted(done[0] & done[1]):
        guided, even = (runs.loc[(masking, pretraining, mode, rate)] for masking in ("self_guided", "random"))
        blank = runs.loc[("untrained", "none", mode, 0)]
        for name, a, b in (
            ("self-guided - random", guided, even),
            ("self-guided - untrained", guided, blank),
            ("random - untrained", even, blank),
        ):
            both = a.index.intersection(b.index)
            for metric in ("macro_f1", "weighted_f1"):
                x, y = (table.loc[both, metric] for table in (a, b))
                d = paired_difference(x.to_numpy(), y.to_numpy(), test_train_ratio=ratio_of_test)
                interval = f"{d['difference']:+.3f} [{d['ci_low']:+.3f}, {d['ci_high']:+.3f}]"
                of_seed = (x - y).groupby("seed").mean()
                above = f"{(of_seed > 0).sum()} of {len(of_seed)}"
                rows.append([pretraining, mode, rate, name, metric, interval, f"{d['p_value']:.3f}", above])
    print_table(
        ["pretraining", "mode", "mask ratio", "difference", "metric", "mean [95 %]", "p", "seeds above 0"], rows
    )
    print()
    rows = []
    for masking in ("self_guided", "random"):
        file = HERE / f"gene_mae_frequency_{masking}.csv"
        if not file.exists():
            continue
        table = pd.read_csv(file, index_col=0)
        for count in ("times_masked", "share_masked_expressed"):
            for mean in ("mean_when_masked", "mean_expression", "mean_where_expressed"):
                rho = spearmanr(table[count], table[mean], nan_policy="omit").statistic
                rows.append([masking, count, mean, f"{rho:+.3f}"])
        if figures is not None:
            ax = sst.pl.masking_frequency(table)
            ax.set_title(masking)
            ax.figure.savefig(figures / f"masking_frequency_{masking}.png", dpi=110)
    print_table(["masking", "how often", "against", "Spearman"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--part",
        choices=["compare", "strict", "baselines", "untrained", "scvi", "scale", "random", "enrichment", "report"],
        required=True,
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.3, 0.6])
    parser.add_argument("--epochs", type=int, default=20, help="of the parts scale and random")
    parser.add_argument("--threads", type=int, default=2, help="of the parts scale and random")
    parser.add_argument("--table", type=Path, default=HERE / "gene_mae_pancreas.csv")
    parser.add_argument("--figures", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning", "lightning.pytorch", "scvi"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if arguments.part == "report":
        report(arguments.table, arguments.figures)
        return
    if arguments.part == "enrichment":
        enrichment()
        return
    adata = cohort()
    if arguments.part in ("scale", "random"):
        masking = "self_guided" if arguments.part == "scale" else "random"
        frequency(adata, masking=masking, n_epochs=arguments.epochs, n_threads=arguments.threads)
        return
    torch.set_num_threads(1)
    table, seeds = Table(arguments.table), range(arguments.seeds)
    if arguments.part in ("compare", "strict"):
        run = compare if arguments.part == "compare" else strict
        run(adata, table, seeds, arguments.ratios)
    else:
        {"baselines": baselines, "untrained": untrained, "scvi": scvi_baseline}[arguments.part](adata, table, seeds)


if __name__ == "__main__":
    main()
