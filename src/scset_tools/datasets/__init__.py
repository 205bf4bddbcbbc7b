"""Cohorts with known truth, built from real cells: for tests, documentation and tutorials.

A cohort is made by resampling the cells of an annotated data set (by default ``scanpy.datasets.pbmc68k_reduced``, which
scanpy carries, so that nothing is downloaded) into samples whose make-up is decided beforehand and written to
``uns["truth"]``. The plan follows scSet, section 4.1.1 and appendix G: a subtype that differs in *composition*, and a
subtype that differs by an equal and opposite *shift* of two cell types, which no average over cells can see.

Samples draw cells with replacement, so the same base cell occurs in many samples. A little seeded noise (``jitter``)
tells the copies apart, and ``pool=(k, of)`` restricts a cohort to one of ``of`` disjoint parts of the base cells:
a model trained on ``pool=(0, 2)`` has seen no cell of a cohort made from ``pool=(1, 2)``.
"""

from __future__ import annotations

from scset_tools.datasets._composition import composition_cohort
from scset_tools.datasets._cytometry import cytometry_cohort
from scset_tools.datasets._pancreas import pancreas
from scset_tools.datasets._pbmc_citeseq import pbmc_citeseq
from scset_tools.datasets._perturbation import perturbation_cohort
from scset_tools.datasets._varied import varied_cohort

__all__ = ["composition_cohort", "cytometry_cohort", "pancreas", "pbmc_citeseq", "perturbation_cohort", "varied_cohort"]
