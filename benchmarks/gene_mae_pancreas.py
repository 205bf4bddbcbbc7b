"""SelfGuidedMAE on the pancreas cohort: self-guided against random masking, cell types of unseen donors, masking frequency.

    python benchmarks/gene_mae_pancreas.py --part sharpness   # do guided masks guide? defaults, 5 and 20 epochs, five seeds (Fig. 2)
    python benchmarks/gene_mae_pancreas.py --part compare     # five donor folds x five seeds x masks x candidates (restartable)
    python benchmarks/gene_mae_pancreas.py --part baselines   # on the same folds: logistic regression on genes and on PCA
    python benchmarks/gene_mae_pancreas.py --part untrained   # the same network with random weights, fine-tuned
    python benchmarks/gene_mae_pancreas.py --part scvi --seeds 1    # logistic regression on scVI's latents
    python benchmarks/gene_mae_pancreas.py --part enrichment  # gene families among the genes masked most (Fig. 3)
    python benchmarks/gene_mae_pancreas.py --part report      # tables from what is on disk; figures with --figures DIR

Every finished run is a line of gene_mae_pancreas.csv at once, and a run that is there is not repeated. Genes are chosen and
models pretrained on the training donors of each fold alone. The cohort is read from ../shared/data or $SCSET_TOOLS_DATA.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import anndata as ad
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import scanpy as sc
from _quiet import one_quiet_thread
from _timing import print_table
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scset_tools as sst
from scset_tools.data._cells import MixedCellDataset
from scset_tools.tl._intervals import paired_difference, t_interval

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("SCSET_TOOLS_DATA", HERE.parents[1] / "shared" / "data"))
FREQUENCY = HERE / "gene_mae_frequency.csv"
TEST_TRAIN = 4 / 16  # donors; for Nadeau and Bengio's variance
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
PRETRAIN = {"max_epochs": 20, "batch_size": 64, "n_cells": 80, "stop_at_plateau": False, "check_val_every_n_epoch": 99}
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
FINETUNE = {
    "linear_probe": {"lr": 3e-3, **QUIET},
    "partial": {"lr": 3e-3, "max_epochs": 3, "batch_size": 64, **QUIET},
}
N_GENES = 300
MASKS = [(masking, candidates) for candidates in ("expressed", "all") for masking in ("self_guided", "random")]


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

    columns = ("seed", "fold", "method", "candidates", "mode")

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


def to_learn_from(adata: ad.AnnData, parts: tuple[list[str], ...]) -> dict[str, object]:
    """Arguments of ``finetune``: cells of training and validation donors, without the types that no training donor has."""
    cells = adata[adata.obs[DONOR].isin([*parts[0], *parts[1]])].copy()
    known = cells.obs.loc[cells.obs[DONOR].isin(parts[0]), TYPE].unique()
    cells.obs[TYPE] = cells.obs[TYPE].astype(object).where(cells.obs[TYPE].isin(known))
    return {"adata": cells, "level": "cell", "external_indexing": parts[:2]}


def partially_finetuned(
    model: sst.SelfGuidedMAE, adata: ad.AnnData, parts: tuple[list[str], ...], seed: int
) -> dict[str, float]:
    start = time.process_time()
    model.finetune(TYPE, mode="partial", seed=seed, **to_learn_from(adata, parts), **FINETUNE["partial"])
    test = adata[adata.obs[DONOR].isin(parts[2])].copy()
    out = scores(test, parts, model.predict(test, label_key=TYPE)[TYPE].to_numpy())
    return {**out, "finetune_s": time.process_time() - start}


def probed(model: sst.SelfGuidedMAE, adata: ad.AnnData, parts: tuple[list[str], ...], seed: int) -> dict[str, float]:
    """The head alone, on frozen vectors."""
    start = time.process_time()
    model.finetune(TYPE, seed=seed, **to_learn_from(adata, parts), **FINETUNE["linear_probe"])
    predicted = model.predict(adata, label_key=TYPE)[TYPE].to_numpy()
    return {**scores(adata, parts, predicted), "finetune_s": time.process_time() - start}


def finetuned(
    model: sst.SelfGuidedMAE, adata: ad.AnnData, parts: tuple[list[str], ...], table: Table, key: tuple, **spent: float
) -> None:
    """Probe and partial fine-tuning, both from the pretrained weights."""
    if not table.has(*key, "linear_probe"):
        table.add(*key, "linear_probe", **probed(model, adata, parts, key[0]), **spent)
    table.add(*key, "partial", **partially_finetuned(model, adata, parts, key[0]), **spent)


def compare(adata: ad.AnnData, table: Table, seeds: range) -> None:
    """Pretrain on the training donors of each fold with each mask, fine-tune on the same donors."""
    for seed in seeds:
        for fold, parts in enumerate(folds(adata, seed)):
            cells = of_fold(adata, parts)
            for masking, candidates in MASKS:
                key = (seed, fold, masking, candidates)
                if table.has(*key, "partial"):
                    continue
                model = built(cells, seed, masking=masking, mask_candidates=candidates)
                start = time.process_time()
                model.train(external_indexing=parts, seed=seed, **PRETRAIN, **QUIET)
                spent = {"train_s": time.process_time() - start}
                for name in ("loss", "overlap", "perplexity"):
                    if f"{name}_train" in model.history:
                        spent[name] = float(model.history[f"{name}_train"].iloc[-1, 0])
                spent |= masks_of(model.get_masking_frequency(), candidates)
                finetuned(model, cells, parts, table, key, **spent)


def masks_of(table: pd.DataFrame, candidates: str = "expressed") -> dict[str, float]:
    """Variance over genes of the z of their masking shares (chance: 1), spread of the shares, expressed ones among the hidden."""
    expressed = table["share_masked_expressed"] * table["times_expressed"]
    of_expressed = candidates == "expressed"
    n = table["times_expressed"] if of_expressed else table["times_masked"] / table["share_masked"]
    share = table["share_masked_expressed"] if of_expressed else table["share_masked"]
    is_seen = table["times_expressed"] >= 50
    n, share = n[is_seen], share[is_seen]
    p = (share * n).sum() / n.sum()
    return {
        "z_variance": float(((share - p) / np.sqrt(p * (1 - p) / n)).var()),
        "share_low": float(share.quantile(0.05)),
        "share_high": float(share.quantile(0.95)),
        "expressed_among_hidden": float(expressed.sum() / table["times_masked"].sum()),
    }


def baselines(adata: ad.AnnData, table: Table, seeds: range) -> None:
    """Linear models on the genes and folds of ``compare``."""
    for seed in seeds:
        linear = {
            "logistic on genes": LogisticRegression(max_iter=200),
            "PCA + logistic": make_pipeline(
                PCA(50, random_state=seed), StandardScaler(), LogisticRegression(max_iter=200)
            ),
        }
        for fold, parts in enumerate(folds(adata, seed)):
            cells = of_fold(adata, parts)
            x, y = cells.layers["log"].toarray(), cells.obs[TYPE].astype(str).to_numpy()
            is_train = cells.obs[DONOR].isin([*parts[0], *parts[1]]).to_numpy()
            for name, estimator in linear.items():
                if not table.has(seed, fold, name, "-", "-"):
                    start = time.process_time()
                    predicted = estimator.fit(x[is_train], y[is_train]).predict(x)
                    seconds = time.process_time() - start
                    table.add(seed, fold, name, "-", "-", **scores(cells, parts, predicted), finetune_s=seconds)


def untrained(adata: ad.AnnData, table: Table, seeds: range) -> None:
    """The network of ``compare`` with random weights, fine-tuned in the same way."""
    for seed in seeds:
        for fold, parts in enumerate(folds(adata, seed)):
            key = (seed, fold, "untrained", "-")
            if not table.has(*key, "partial"):
                cells = of_fold(adata, parts)
                model = built(cells, seed)
                model.is_trained_ = True  # of a control with random weights it is known
                finetuned(model, cells, parts, table, key)


def scvi_baseline(adata: ad.AnnData, table: Table, seeds: range) -> None:
    """Logistic regression on scVI's latents; scVI is trained on the training donors."""
    for seed in seeds:
        for fold, parts in enumerate(folds(adata, seed)):
            key = (seed, fold, "scVI + logistic", "-", "-")
            if not table.has(*key):
                cells = of_fold(adata, parts)
                y = cells.obs[TYPE].astype(str).to_numpy()
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


def default_model(adata: ad.AnnData, n_genes: int, seed: int, **build: object) -> sst.SelfGuidedMAE:
    """The default preset on genes chosen over all donors."""
    cells = of_fold(adata, (list(adata.obs[DONOR].unique()),), n_genes=n_genes)
    sst.SelfGuidedMAE.setup_anndata(cells, DONOR, layer="log")
    preset = sst.SelfGuidedMAE.preset("default")
    return sst.SelfGuidedMAE(cells, values="normalized", random_state=seed, **{**preset.model, **build})


def count_masks(model: sst.SelfGuidedMAE, n_epochs: int, n_cells: int, seed: int) -> None:
    """Count what random masks hide of as many cells of each donor: they depend on no weights, and no training is needed."""
    donor = model.adata.obs[DONOR].astype(str).to_numpy()
    for epoch in range(n_epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(donor))
        rows = np.sort(pd.Series(order).groupby(donor[order]).head(n_cells).to_numpy())
        batch = MixedCellDataset(model.adata_manager, seed=seed).cells(rows, epoch)
        tokens = model.module.tokens(batch)
        model.module.counts.add(tokens, model.module.hide(tokens, None, batch.seed), n_cells=batch.n_cells)


class Snapshots(pl.Callback):
    """The masking counts after some epochs."""

    def __init__(self, model: sst.SelfGuidedMAE, after: tuple[int, ...]) -> None:
        self.model, self.after, self.tables = model, after, {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 in self.after:
            self.tables[trainer.current_epoch + 1] = self.model.get_masking_frequency()


def sharpness(adata: ad.AnnData, seeds: range, *, n_genes: int, n_cells: int) -> None:
    """Variance of the z of masking shares at default settings, in training; the frequencies of the first seed are kept."""
    rows, kept = [], []
    for masking, candidates in MASKS:
        found: dict[int, list[dict[str, float]]] = {}
        start = time.process_time()
        for seed in seeds:
            model = default_model(adata, n_genes, seed, masking=masking, mask_candidates=candidates)
            if masking == "random":
                count_masks(model, 20, n_cells, seed)
                found.setdefault(20, []).append(masks_of(model.get_masking_frequency(), candidates))
            else:
                snapshots = Snapshots(model, (5, 20))
                train = {"train_size": 1.0, "seed": seed, "n_cells": n_cells, "stop_at_plateau": False, **QUIET}
                model.train(20, callbacks=[snapshots], **train)
                for epoch, table in snapshots.tables.items():
                    at_end = {k: model.history[f"{k}_train"].iloc[epoch - 1, 0] for k in ("perplexity", "overlap")}
                    found.setdefault(epoch, []).append({**masks_of(table, candidates), **at_end})
            if seed == seeds[0]:
                kept.append(frequency(model, masking, candidates))
        seconds = (time.process_time() - start) / len(seeds)
        for epoch, of_seed in found.items():
            t = pd.DataFrame(of_seed)
            row = [
                masking,
                candidates,
                epoch if masking == "self_guided" else "-",
                ", ".join(f"{v:.1f}" for v in t["z_variance"]),
                f"{t['share_low'].mean():.2f} to {t['share_high'].mean():.2f}",
                f"{t['expressed_among_hidden'].mean():.3f}",
                *(f"{t[k].min():.2f} to {t[k].max():.2f}" if k in t else "-" for k in ("perplexity", "overlap")),
                f"{seconds:.0f}",
            ]
            rows.append(row)
            print(*row, flush=True)
    pd.concat(kept).round(5).to_csv(FREQUENCY)
    header = [
        "masks",
        "candidates",
        "epochs",
        "variance of z, by seed",
        "5 % to 95 % of shares",
        "expressed among hidden",
    ]
    print_table([*header, "perplexity", "overlap", "processor s"], rows)


def frequency(model: sst.SelfGuidedMAE, masking: str, candidates: str) -> pd.DataFrame:
    """Masking frequency of the genes beside their mean expression."""
    x = model.adata.layers["log"]
    table = model.get_masking_frequency()
    table["mean_expression"] = np.asarray(x.mean(0)).ravel()
    table["mean_where_expressed"] = np.asarray(x.sum(0)).ravel() / np.maximum(x.getnnz(0), 1)
    table.insert(0, "candidates", candidates)
    table.insert(0, "masking", masking)
    return table.rename_axis("gene")


def frequencies() -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Masks, candidates and the table of each."""
    table = pd.read_csv(FREQUENCY, index_col=0)
    for masking, candidates in MASKS:
        yield masking, candidates, table[(table["masking"] == masking) & (table["candidates"] == candidates)]


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
    """Families among the fifth of the genes masked most (at most a hundred), of those that 200 visits found expressed."""
    rows = []
    for masking, candidates, whole in frequencies():
        table = whole[whole["times_expressed"] >= 200]
        sets = {name: table.index[table.index.str.match(pattern)].tolist() for name, pattern in FAMILIES.items()}
        for count in ("times_masked", "share_masked_expressed"):
            found = sst.tl.enrichment(table[count], sets, n_top=min(100, len(table) // 5), min_size=3)
            is_enriched = found["p_adjusted"] <= 0.05
            for _, f in found[is_enriched].iterrows():
                share = f"{f['n_overlap']} of {f['n_set']}"
                row = [masking, candidates, count, f["gene_set"], share]
                rows.append([*row, f"{f['fold']:.1f}", f"{f['p_adjusted']:.1e}"])
            if not is_enriched.any():
                none = f"none of {len(found)}"
                rows.append([masking, candidates, count, none, "", "", f"{found['p_adjusted'].min():.2f}"])
    header = ["masks", "candidates", "genes masked most by", "family at 5 % FDR", "genes", "fold", "adjusted p"]
    print_table(header, rows)


def report(path: Path, figures: Path | None) -> None:
    """Tables of means with intervals, paired tests, and Spearman correlations of the masking frequency."""
    runs = pd.read_csv(path)
    rows = []
    for (method, candidates, mode), part in runs.groupby(["method", "candidates", "mode"]):
        row = [method, candidates, mode]
        for metric in ("macro_f1", "weighted_f1"):
            low, high = t_interval(part[metric].to_numpy(), test_train_ratio=TEST_TRAIN)
            row.append(f"{part[metric].mean():.3f} [{low:.3f}, {high:.3f}]")
        rows.append([*row, len(part)])
    print_table(["method", "candidates", "mode", "macro F1 [95 %]", "weighted F1 [95 %]", "runs"], rows)
    print()
    rows = []
    runs = runs.set_index(["method", "candidates", "mode", "seed", "fold"]).sort_index()
    for mode in FINETUNE:
        blank = runs.loc[("untrained", "-", mode)]
        for candidates in ("expressed", "all"):
            guided, even = (runs.loc[(masking, candidates, mode)] for masking in ("self_guided", "random"))
            for name, a, b in (
                ("self-guided - random", guided, even),
                ("self-guided - untrained", guided, blank),
                ("random - untrained", even, blank),
            ):
                rows += [[mode, candidates, name, *row] for row in differences(a, b)]
        guided = [runs.loc[("self_guided", candidates, mode)] for candidates in ("all", "expressed")]
        rows += [[mode, "all - expressed", "self-guided", *row] for row in differences(*guided)]
    print_table(["mode", "candidates", "difference", "metric", "mean [95 %]", "p", "seeds above 0"], rows)
    print()
    masks = runs.reset_index().query("mode == 'linear_probe' and method in ('self_guided', 'random')")
    columns = ["z_variance", "share_low", "share_high", "expressed_among_hidden", "perplexity", "overlap", "train_s"]
    means = masks.groupby(["method", "candidates"])[columns].mean().round(2)
    rows = [[*key, *row] for key, row in zip(means.index, means.to_numpy(), strict=True)]
    print_table(["masks", "candidates", *columns], rows)
    print()
    if FREQUENCY.exists():
        correlations(figures)


def differences(a: pd.DataFrame, b: pd.DataFrame) -> list[list[str]]:
    """Of both F1 over the runs that both have."""
    rows, both = [], a.index.intersection(b.index)
    for metric in ("macro_f1", "weighted_f1"):
        x, y = (table.loc[both, metric] for table in (a, b))
        d = paired_difference(x.to_numpy(), y.to_numpy(), test_train_ratio=TEST_TRAIN)
        interval = f"{d['difference']:+.3f} [{d['ci_low']:+.3f}, {d['ci_high']:+.3f}]"
        of_seed = (x - y).groupby("seed").mean()
        rows.append([metric, interval, f"{d['p_value']:.3f}", f"{(of_seed > 0).sum()} of {len(of_seed)}"])
    return rows


def correlations(figures: Path | None) -> None:
    """Masking frequency against expression (the paper's Figure 2), and the share of expressed genes among the hidden."""
    rows = []
    for masking, candidates, table in frequencies():
        row = [masking, candidates, f"{masks_of(table, candidates)['expressed_among_hidden']:.3f}"]
        seen = table[table["times_expressed"] >= 50]
        for count in ("times_masked", "share_masked_expressed"):
            for mean in ("mean_when_masked", "mean_expression", "mean_where_expressed"):
                row.append(f"{spearmanr(seen[count], seen[mean], nan_policy='omit').statistic:+.2f}")
        rows.append(row)
        if figures is not None:
            ax = sst.pl.masking_frequency(table)
            ax.set_title(f"{masking}, {candidates}")
            ax.figure.savefig(figures / f"masking_frequency_{masking}_{candidates}.png", dpi=110)
    means = ("value when masked", "mean", "mean where expressed")
    header = [f"{count} ~ {mean}" for count in ("times", "share where expressed") for mean in means]
    print_table(["masks", "candidates", "expressed among hidden", *header], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    fitted = {"compare": compare, "baselines": baselines, "untrained": untrained, "scvi": scvi_baseline}
    parser.add_argument("--part", choices=["sharpness", *fitted, "enrichment", "report"], required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--genes", type=int, default=500, help="of the part sharpness")
    parser.add_argument("--cells", type=int, default=60, help="of each donor and epoch, of the part sharpness")
    parser.add_argument("--table", type=Path, default=HERE / "gene_mae_pancreas.csv")
    parser.add_argument("--figures", type=Path)
    arguments = parser.parse_args()
    one_quiet_thread()
    seeds = range(arguments.seeds)
    if arguments.part == "report":
        report(arguments.table, arguments.figures)
    elif arguments.part == "enrichment":
        enrichment()
    elif arguments.part == "sharpness":
        sharpness(cohort(), seeds, n_genes=arguments.genes, n_cells=arguments.cells)
    else:
        fitted[arguments.part](cohort(), Table(arguments.table), seeds)


if __name__ == "__main__":
    main()
