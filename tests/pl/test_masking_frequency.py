from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from scset_tools import pl


def table(n: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    times = rng.permutation(n).astype(float)
    return pd.DataFrame(
        {"times_masked": times, "mean_when_masked": times / n + rng.random(n), "share_masked": times / 100},
        index=[f"gene{i}" for i in range(n)],
    )


def test_every_gene_is_a_point_and_the_most_masked_are_named():
    genes = table()
    genes.loc["gene3", "mean_when_masked"] = np.nan
    ax = pl.masking_frequency(genes, n_labels=3)
    known = genes.drop("gene3")
    (dots,) = ax.collections
    np.testing.assert_allclose(dots.get_offsets(), known[["mean_when_masked", "times_masked"]])
    rho = spearmanr(known["times_masked"], known["mean_when_masked"]).statistic
    texts = [t.get_text() for t in ax.texts]
    assert texts == [f"Spearman {rho:.2f}, 29 genes", *known["times_masked"].nlargest(3).index]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mean when masked", "times masked")


def test_of_an_annotated_anndata():
    genes = table()
    adata = ad.AnnData(np.zeros((2, len(genes))), var=genes.add_prefix("selfguidedmae_"))
    (dots,) = pl.masking_frequency(adata, frequency="share_masked").collections
    np.testing.assert_allclose(dots.get_offsets()[:, 1], genes["share_masked"])


def test_what_is_no_such_table():
    with pytest.raises(TypeError, match="takes a DataFrame or an AnnData, but was given list"):
        pl.masking_frequency([1, 2])
    with pytest.raises(KeyError, match=r"needs the columns \['times_masked'\]"):
        pl.masking_frequency(table().drop(columns="times_masked"))
    with pytest.raises(KeyError, match="annotate_masking_frequency"):
        pl.masking_frequency(ad.AnnData(np.zeros((2, 3))))
    with pytest.raises(ValueError, match="1 of 30 genes have both"):
        pl.masking_frequency(table().where(table()["times_masked"] == 0))
