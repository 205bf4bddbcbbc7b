"""The heat map shows the genes that score most, with their values, on a scale that is even about zero."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scset_tools import pl


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(3, 30)) * 0.1, index=["B", "NK", "T"], columns=[f"g{i}" for i in range(30)])
    frame.loc["B", ["g3", "g4"]] = [2.0, -3.0]
    frame.loc["NK", ["g4", "g9"]] = [1.0, 1.5]
    frame.loc["T", ["g20", "g21"]] = [0.9, 0.8]
    return frame


def test_top_genes_of_every_type_are_shown_once(table):
    ax = pl.gene_heatmap(table, n_top=2)
    genes = [t.get_text() for t in ax.get_xticklabels()]
    assert sorted(genes) == ["g20", "g21", "g3", "g4", "g9"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["B", "NK", "T"]
    image = ax.images[0]
    np.testing.assert_allclose(image.get_array(), table[genes])
    assert image.get_clim() == (-3.0, 3.0)


def test_missing_values_stay_empty(table):
    table.loc["T"] = np.nan
    array = pl.gene_heatmap(table, n_top=1).images[0].get_array()
    assert array.mask[2].all()
    assert not array.mask[:2].any()


def test_given_axes_and_one_gene(table):
    _, ax = plt.subplots()
    assert pl.gene_heatmap(table[["g1"]], ax=ax) is ax
    assert len(ax.get_xticks()) == 1


def test_bad_input(table):
    with pytest.raises(TypeError, match="takes a DataFrame of cell types x genes, but was given ndarray"):
        pl.gene_heatmap(table.to_numpy())
    with pytest.raises(ValueError, match="without any number"):
        pl.gene_heatmap(table * np.nan)
