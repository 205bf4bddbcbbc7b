"""Baselines: cells in, one vector per sample out, without a network.

Every profile is a class with `fit`, `transform` and `fit_transform` (for cross-validation), and a function of the same
parameters that returns the sample-level AnnData at once.
"""

from __future__ import annotations

from scset_tools.profiles._base import Profile
from scset_tools.profiles._controls import NumberOfCells, RandomVector, SequencingDepth
from scset_tools.profiles._fractions import Fractions, FractionsAndMeans
from scset_tools.profiles._functions import as_function
from scset_tools.profiles._kernel_mean import KernelMean
from scset_tools.profiles._kmeans import KMeansFractions, KMeansMeans
from scset_tools.profiles._mean import Mean, MeanPerType
from scset_tools.profiles._mixture import MixtureFractions
from scset_tools.profiles._otke import OTKE

fractions = as_function(Fractions)
fractions_and_means = as_function(FractionsAndMeans)
kernel_mean = as_function(KernelMean)
kmeans_fractions = as_function(KMeansFractions)
kmeans_means = as_function(KMeansMeans)
mean = as_function(Mean)
mean_per_type = as_function(MeanPerType)
mixture_fractions = as_function(MixtureFractions)
number_of_cells = as_function(NumberOfCells)
otke = as_function(OTKE)
random_vector = as_function(RandomVector)
sequencing_depth = as_function(SequencingDepth)

__all__ = [
    "OTKE",
    "Fractions",
    "FractionsAndMeans",
    "KMeansFractions",
    "KMeansMeans",
    "KernelMean",
    "Mean",
    "MeanPerType",
    "MixtureFractions",
    "NumberOfCells",
    "Profile",
    "RandomVector",
    "SequencingDepth",
    "fractions",
    "fractions_and_means",
    "kernel_mean",
    "kmeans_fractions",
    "kmeans_means",
    "mean",
    "mean_per_type",
    "mixture_fractions",
    "number_of_cells",
    "otke",
    "random_vector",
    "sequencing_depth",
]
