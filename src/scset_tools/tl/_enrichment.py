"""Are a list's genes in a gene set more often than chance: one-sided Fisher test against a stated background."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from importlib import import_module
from warnings import warn

import numpy as np
import pandas as pd
from scipy import stats

from scset_tools import _checks
from scset_tools._numbers import checks_numbers
from scset_tools.tl._gene_sets import GeneSets, gene_name, gene_names, read_gene_sets
from scset_tools.tl._intervals import benjamini_hochberg

BACKENDS = ("scipy", "decoupler")


@checks_numbers
def enrichment(
    genes: Iterable[str] | pd.Series,
    gene_sets: GeneSets,
    *,
    background: Iterable[str] | None = None,
    n_top: int | None = None,
    min_size: int = 2,
    max_size: int | None = None,
    backend: str = "scipy",
) -> pd.DataFrame:
    """Over-representation of gene sets in a gene list (one-sided Fisher's exact test, hypergeometric tail).

    PaSCient validates its important genes with this test (section 2.3). Reports only.

    Parameters
    ----------
    genes
        The list, best first; or a Series of scores with genes as index (largest is best), such as an attribution in
        ``adata.var``. Genes named twice count once, with their larger score; missing names are left out with a warning.
    gene_sets
        Names to genes, the path of a GMT file (see :func:`read_gmt`), or a table with the columns ``source`` (set) and ``target``
        (gene), as decoupler has them.
    background
        All genes that could have come into the list: those measured and tested, not the genome and not the union of the
        gene sets. Default: the whole ranking, if ``genes`` is a Series or longer than ``n_top``; a bare list needs it.
    n_top
        How many genes of the ranking make the list. Needed for a Series; default for a list: all. Where the cut goes through
        genes of one score, none of these is taken, and a warning says so; of a ranking that says nothing the list is empty.
    min_size
        Sets with fewer genes in the background are not tested.
    max_size
        Sets with more genes in the background are not tested.
    backend
        ``"scipy"``, or ``"decoupler"`` to let that package compute the p-values (``decoupler.mt.query_set``), if installed.

    Returns
    -------
    DataFrame
        One row per tested set, smallest p-value first: ``gene_set``, ``n_set`` (its genes in the background), ``n_list``,
        ``n_background``, ``n_overlap``, ``n_expected`` by chance, ``fold`` (overlap over expected), ``odds_ratio`` (sample
        odds ratio; inf if no gene of the set is outside the list), ``p_value``, ``p_adjusted`` (Benjamini-Hochberg over the
        table), ``genes`` (the overlap, in the order of the list, joined by ``;``).

    Raises
    ------
    ValueError
        If there is no background or no list, or no set has enough genes in the background.
    TypeError
        If the list, the background or a set is a text, the list is a table, or ``n_top`` is to cut a list without an order.
    ImportError
        If the backend is decoupler, which is not installed.

    Warns
    -----
    UserWarning
        If genes of the list are not in the background, names are missing, or scores are tied at the cut: they are left out.
    """
    if backend not in BACKENDS:
        msg = f"backend must be one of {BACKENDS}, but is {backend!r}."
        raise ValueError(msg)
    chosen, universe = _list_and_background(genes, background, n_top)
    sets = read_gene_sets(gene_sets)
    members = {name: set(content) & universe for name, content in sets.items()}
    sizes = {name: len(m) for name, m in members.items()}
    tested = [n for n, size in sizes.items() if size >= max(min_size, 1) and (max_size is None or size <= max_size)]
    if not tested:
        _raise_untestable(sets, sizes, universe, min_size, max_size)
    is_chosen = set(chosen)
    n_list, n_background = len(chosen), len(universe)
    n_set = np.array([sizes[n] for n in tested])
    overlap = [[g for g in chosen if g in members[n]] for n in tested]
    k = np.array([len(o) for o in overlap])
    if backend == "decoupler":
        p_value = _decoupler_p_values(is_chosen, {n: members[n] for n in tested}, n_background)
    else:
        p_value = stats.hypergeom.sf(k - 1, n_background, n_set, n_list)
    # the four counts: in both, set only, list only, neither
    b, c = n_set - k, n_list - k
    d = n_background - n_set - n_list + k
    expected = n_set * n_list / n_background
    with np.errstate(divide="ignore", invalid="ignore"):
        odds_ratio, fold = (k * d) / (b * c), k / expected
    out = pd.DataFrame(
        {
            "gene_set": tested,
            "n_set": n_set,
            "n_list": n_list,
            "n_background": n_background,
            "n_overlap": k,
            "n_expected": expected,
            "fold": fold,
            "odds_ratio": odds_ratio,
            "p_value": p_value,
            "p_adjusted": benjamini_hochberg(p_value),
            "genes": [";".join(o) for o in overlap],
        }
    )
    return out.sort_values(["p_value", "gene_set"], kind="stable").reset_index(drop=True)


def _list_and_background(
    genes: Iterable[str] | pd.Series, background: Iterable[str] | None, n_top: int | None
) -> tuple[list[str], set[str]]:
    """The chosen genes, best first and each once, and all genes that could have been chosen."""
    if isinstance(genes, str):
        msg = f"genes must be a list of genes or a Series of scores, but is the text {genes!r}."
        raise TypeError(msg)
    if isinstance(genes, pd.DataFrame):
        msg = f"genes must be a list of genes or a Series of scores, but is a table with the columns {_checks.first(genes.columns)}: pass one of them."
        raise TypeError(msg)
    if isinstance(genes, (Set, Mapping)) and n_top is not None:
        msg = f"genes has no order ({type(genes).__name__} of {len(genes)}), so that n_top={n_top} would take any of them. Pass a list, best first, or a Series of scores."
        raise TypeError(msg)
    if isinstance(genes, pd.Series):
        if not pd.api.types.is_numeric_dtype(genes.dtype):
            msg = f"A Series of genes must hold scores, with genes as index, but has dtype {genes.dtype}. Pass a list instead."
            raise ValueError(msg)
        if n_top is None:
            msg = f"A Series ranks all its {len(genes)} genes: pass n_top, how many of them make the list."
            raise ValueError(msg)
        # a gene without a score was not tested: neither in the list nor in the background
        scores = genes.dropna()
        names = scores.index.to_series().astype(object).where(~scores.index.isna(), "").map(gene_name)
        scores = scores.groupby(names.to_numpy()).max().drop("", errors="ignore")  # sorted by name
        scores = scores.sort_values(ascending=False, kind="stable")
        ranking = scores.index.tolist()
    else:
        scores, ranking = None, gene_names(genes, what="genes")
    if background is not None:
        universe = set(gene_names(background, what="background"))
        outside = [g for g in ranking if g not in universe]
        if outside:
            warn(
                f"{len(outside)} of {len(ranking)} genes of the list are not in the background of {len(universe)} genes "
                f"(first: {_checks.first(outside)}) and are left out.",
                UserWarning,
                stacklevel=3,
            )
        ranking = [g for g in ranking if g in universe]
    elif n_top is not None and n_top < len(ranking):
        universe = set(ranking)
    else:
        msg = (
            f"A list of {len(ranking)} genes needs background: all genes that could have come into it, for example "
            "adata.var_names. Or pass the whole ranking and n_top."
        )
        raise ValueError(msg)
    chosen = ranking if n_top is None else ranking[:n_top]
    if not chosen:
        msg = f"No gene of the list is in the background of {len(universe)} genes (do both use symbols, or both identifiers?)."
        raise ValueError(msg)
    if scores is not None and len(chosen) < len(ranking):
        chosen = _without_ties(scores[ranking], chosen)
    return chosen, universe


def _without_ties(scores: pd.Series, chosen: list[str]) -> list[str]:
    """The chosen genes without those that score as the first one left out: which of them came in would be chance."""
    at_cut = scores.iloc[len(chosen)]
    kept = [g for g in chosen if scores[g] > at_cut]
    if len(kept) == len(chosen):
        return chosen
    n_tied = int((scores == at_cut).sum())
    warn(
        f"The cut after {len(chosen)} genes goes through {n_tied} genes with the same score ({at_cut:.3g}): none of them is taken, "
        f"and {len(kept)} genes make the list.",
        UserWarning,
        stacklevel=4,
    )
    return kept


def _raise_untestable(
    sets: Mapping[str, Iterable[str]], sizes: dict[str, int], universe: set[str], min_size: int, max_size: int | None
) -> None:
    example = next((str(g) for content in sets.values() for g in content), "none")
    msg = (
        f"None of {len(sets)} gene sets has between {min_size} and {max_size or 'any number of'} genes in the background of "
        f"{len(universe)} genes (largest: {max(sizes.values(), default=0)}). A gene of the sets is {example!r}, one of the "
        f"background {min(universe)!r}: do both use the same names?"
    )
    raise ValueError(msg)


def _decoupler_p_values(chosen: set[str], members: dict[str, set[str]], n_background: int) -> np.ndarray:
    try:
        decoupler = import_module("decoupler")
    except ImportError as error:
        msg = "backend='decoupler' needs the package decoupler (2 or newer): pip install decoupler. Or use backend='scipy'."
        raise ImportError(msg) from error
    net = pd.DataFrame([(name, g) for name, m in members.items() for g in sorted(m)], columns=["source", "target"])
    result = decoupler.mt.query_set(features=sorted(chosen), net=net, n_bg=n_background, tmin=1)
    return result.set_index("source").loc[list(members), "pval"].to_numpy(dtype=np.float64)
