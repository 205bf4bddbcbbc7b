"""Plots of samples, models and evaluations: one per question, on any object with the right keys."""

from scset_tools.pl._attention import attention
from scset_tools.pl._benchmark_bars import benchmark_bars
from scset_tools.pl._clustermap import clustermap
from scset_tools.pl._confounding import confounding
from scset_tools.pl._counterfactual import counterfactual
from scset_tools.pl._denoising import denoising
from scset_tools.pl._enrichment import enrichment
from scset_tools.pl._forest import forest
from scset_tools.pl._gene_heatmap import gene_heatmap
from scset_tools.pl._generated import generated_composition
from scset_tools.pl._grouped_scores import grouped_scores
from scset_tools.pl._learning_curve import learning_curve
from scset_tools.pl._masking_frequency import masking_frequency
from scset_tools.pl._neighbor_table import neighbor_table
from scset_tools.pl._niches import niches
from scset_tools.pl._paired import paired
from scset_tools.pl._power import power
from scset_tools.pl._proportions import proportions
from scset_tools.pl._radar import radar
from scset_tools.pl._ranked_scores import ranked_scores
from scset_tools.pl._reconstruction import reconstruction
from scset_tools.pl._sample_map import sample_map
from scset_tools.pl._similarity import similarity
from scset_tools.pl._subtype_trees import subtype_trees
from scset_tools.pl._training_history import training_history

__all__ = [
    "attention",
    "benchmark_bars",
    "clustermap",
    "confounding",
    "counterfactual",
    "denoising",
    "enrichment",
    "forest",
    "gene_heatmap",
    "generated_composition",
    "grouped_scores",
    "learning_curve",
    "masking_frequency",
    "neighbor_table",
    "niches",
    "paired",
    "power",
    "proportions",
    "radar",
    "ranked_scores",
    "reconstruction",
    "sample_map",
    "similarity",
    "subtype_trees",
    "training_history",
]
