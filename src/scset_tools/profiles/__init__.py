"""Baselines: cells in, one vector per sample out, without a network.

Every profile is a class with `fit`, `transform` and `fit_transform` (for cross-validation), and a function of the same
parameters that returns the sample-level AnnData at once.
"""

from __future__ import annotations

from scset_tools.profiles._base import Profile
from scset_tools.profiles._fractions import Fractions, FractionsAndMeans
from scset_tools.profiles._functions import as_function
from scset_tools.profiles._kmeans import KMeansFractions, KMeansMeans
from scset_tools.profiles._mean import Mean, MeanPerType

mean = as_function(Mean)
mean_per_type = as_function(MeanPerType)
fractions = as_function(Fractions)
fractions_and_means = as_function(FractionsAndMeans)
kmeans_fractions = as_function(KMeansFractions)
kmeans_means = as_function(KMeansMeans)

__all__ = [
    "Fractions",
    "FractionsAndMeans",
    "KMeansFractions",
    "KMeansMeans",
    "Mean",
    "MeanPerType",
    "Profile",
    "fractions",
    "fractions_and_means",
    "kmeans_fractions",
    "kmeans_means",
    "mean",
    "mean_per_type",
]
