"""Every name that this package writes into an AnnData, built in one place.

A model is known by its lower-case name (``"maestro"``); the same name prefixes what it writes, so that the results of
two models never collide and a plot finds what a model wrote.
"""

from __future__ import annotations

N_CELLS = "n_cells"
"""Column of a sample-level ``obs``: number of cells of the sample."""

SAMPLE_LEVEL = "scset_tools"
"""Entry of a sample-level ``uns``: which column named the samples, and which package version made it."""


def representation(name: str) -> str:
    """``obsm`` key of a representation: ``X_maestro``."""
    return f"X_{name}"


def features(name: str, n: int) -> list[str]:
    """``var_names`` of a sample-level AnnData: ``maestro_0``, ``maestro_1``, ..."""
    return [f"{name}_{i}" for i in range(n)]


def attention(name: str) -> str:
    """``obs`` key (mean over heads) and ``obsm`` key (one column per head) of the attention on each cell."""
    return f"{name}_attention"


def attribution(name: str, target: str) -> str:
    """``obs`` (cells) and ``var`` (genes or markers) key of an attribution to ``target``."""
    return f"{name}_attribution_{target}"


def of_model(name: str, what: str) -> str:
    """``obs`` or ``var`` key of something that a model says of a cell or a gene: ``selfguidedmae_times_masked``."""
    return f"{name}_{what}"


def role() -> str:
    """``obs`` key that tells input, hidden and predicted cells apart in a reconstruction."""
    return "role"


def step() -> str:
    """``obs`` key of the step of each cell on its way from noise (the last step) to a finished cell (0)."""
    return "step"


def distances(use_rep: str | None) -> str:
    """``obsp`` key of all distances between samples: ``maestro_distances`` for the representation ``X_maestro``."""
    return f"{use_rep.removeprefix('X_')}_distances" if use_rep not in (None, "X") else "sample_distances"


def attribution_genes(key: str) -> str:
    """``uns`` key of attributions to features that are not in ``var``."""
    return f"{key}_genes"


def attribution_scores(key: str) -> str:
    """``uns`` key of the explained scores of samples, with the completeness of their attributions."""
    return f"{key}_scores"
