"""Results print what they hold, in a few lines, whatever the size of their tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

import scset_tools as sst
from scset_tools._short_repr import ShortRepr


def test_repr_of_every_kind_of_field():
    @dataclass(frozen=True, repr=False)
    class Result(ShortRepr):
        table: pd.DataFrame
        array: np.ndarray
        sizes: dict[str, int]
        names: tuple[str, ...]
        score: float
        other: object
        _hidden: int = 0

        def summary(self) -> None: ...

    small = Result(pd.DataFrame({"a": [1]}), np.zeros(2), {}, (), 0.5, None)
    got = Result(
        pd.DataFrame(np.zeros((1200, 6)), columns=list("abcdef")),
        np.zeros((3, 4)),
        {"x": 1},
        tuple("vwxyz"),
        0.123456,
        small,
    )
    assert repr(got).splitlines() == [
        "Result (see .summary())",
        "    table: DataFrame, 1,200 x 6: a, b, c, d, ... (2 more)",
        "    array: ndarray, 3 x 4",
        "    sizes: {x: 1}",
        "    names: ['v', 'w', 'x', 'y', ... (1 more)]",
        "    score: 0.1235",
        "    other: Result",
    ]


def test_results_of_a_cohort_are_short():
    rng = np.random.default_rng(0)
    cells = sst.datasets.composition_cohort(n_samples=12, n_cells=20)
    samples = sst.profiles.mean(cells, sample_key="sample")
    bench = sst.tl.benchmark(samples, ["X"], "subtype", cv=3, n_repeats=2, tune=False, progress=False, rng=rng)
    for result in (bench, sst.tl.neighbor_table(samples, "subtype")):
        assert len(repr(result).splitlines()) < 12
        assert max(map(len, repr(result).splitlines())) < 160
    assert "results: DataFrame, 6 x " in repr(bench)


def test_dir_shows_public_names_alone():
    assert dir(sst) == sorted(sst.__all__)
    assert sst.nn.loss.SinkhornLoss.__name__ == "SinkhornLoss"
