"""Evaluation of sample representations: any sample-level AnnData, whoever wrote it."""

from scset_tools.tl._association import association
from scset_tools.tl._benchmark import benchmark
from scset_tools.tl._benchmark_result import BenchmarkResult
from scset_tools.tl._compare_similarity import SimilarityComparison, compare_similarity
from scset_tools.tl._confounding import ConfoundingResult, confounding
from scset_tools.tl._counterfactual import CounterfactualShifts, counterfactual_shifts
from scset_tools.tl._distance_tables import get_distance_table, read_distances
from scset_tools.tl._distances import distances
from scset_tools.tl._enrichment import enrichment
from scset_tools.tl._gene_sets import read_gmt
from scset_tools.tl._generated import (
    GeneratedComposition,
    generated_composition,
    generated_distances,
    transfer_labels,
)
from scset_tools.tl._group_scores import group_scores
from scset_tools.tl._health import RepresentationHealth, representation_health
from scset_tools.tl._join_samples import join_samples
from scset_tools.tl._label_similarity import label_similarity
from scset_tools.tl._learning_curve import learning_curve
from scset_tools.tl._neighbors import NeighborTable, neighbor_accuracy, neighbor_table
from scset_tools.tl._niches import aggregate_niches
from scset_tools.tl._power import PowerResult, power
from scset_tools.tl._probe import probe
from scset_tools.tl._probe_result import ProbeResult
from scset_tools.tl._proportions import ProportionResult, retrieve_proportions
from scset_tools.tl._representation import get_distances, get_representation
from scset_tools.tl._robustness import RobustnessResult, batch_removal, information_retention, replicate_robustness
from scset_tools.tl._spare import SpareResult, spare
from scset_tools.tl._subtypes import subtypes
from scset_tools.tl._tables import get_score_table, read_table
from scset_tools.tl._trajectory import TrajectoryResult, trajectory_correlation

__all__ = [
    "BenchmarkResult",
    "ConfoundingResult",
    "CounterfactualShifts",
    "GeneratedComposition",
    "NeighborTable",
    "PowerResult",
    "ProbeResult",
    "ProportionResult",
    "RepresentationHealth",
    "RobustnessResult",
    "SimilarityComparison",
    "SpareResult",
    "TrajectoryResult",
    "aggregate_niches",
    "association",
    "batch_removal",
    "benchmark",
    "compare_similarity",
    "confounding",
    "counterfactual_shifts",
    "distances",
    "enrichment",
    "generated_composition",
    "generated_distances",
    "get_distance_table",
    "get_distances",
    "get_representation",
    "get_score_table",
    "group_scores",
    "information_retention",
    "join_samples",
    "label_similarity",
    "learning_curve",
    "neighbor_accuracy",
    "neighbor_table",
    "power",
    "probe",
    "read_distances",
    "read_gmt",
    "read_table",
    "replicate_robustness",
    "representation_health",
    "retrieve_proportions",
    "spare",
    "subtypes",
    "trajectory_correlation",
    "transfer_labels",
]
