from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scset_tools import pl


def cells() -> AnnData:
    rng = np.random.default_rng(0)
    types = np.repeat(["B", "NK", "T"], [30, 20, 50])
    level = pd.Series(types).map({"B": 1.0, "NK": 4.0, "T": 0.5}).to_numpy()
    obs = pd.DataFrame({"type": pd.Categorical(types), "maestro_attention": level * rng.uniform(0.8, 1.2, 100)})
    obs.index = obs.index.astype(str)
    return AnnData(np.zeros((100, 1), dtype=np.float32), obs=obs)


def test_boxes_are_quartiles_in_the_order_of_the_medians():
    adata = cells()
    ax = pl.attention(adata, groupby="type")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["T (50)", "B (30)", "NK (20)"]
    for box, name in zip(ax.patches, ["T", "B", "NK"], strict=True):
        values = adata.obs.loc[adata.obs["type"] == name, "maestro_attention"]
        assert box.get_x() == pytest.approx(values.quantile(0.25))
        assert box.get_x() + box.get_width() == pytest.approx(values.quantile(0.75))
    assert ax.get_xscale() == "log"
    assert "average cell" in ax.get_xlabel()
    assert ax.get_ylabel() == "type"


def test_missing_values_types_and_zeros():
    adata = cells()
    adata.obs.loc["0", "maestro_attention"] = np.nan
    adata.obs.loc["31", "type"] = np.nan
    adata.obs.loc["99", "maestro_attention"] = 0.0
    ax = pl.attention(adata, groupby="type")
    assert {text.get_text() for text in ax.get_yticklabels()} == {"B (29)", "NK (19)", "T (50)", "missing (1)"}
    assert ax.get_xscale() == "linear"


def test_one_cell():
    ax = pl.attention(cells()[:1], groupby="type")
    assert len(ax.patches) == 1


def test_errors():
    adata = cells()
    with pytest.raises(KeyError, match="'no' is not a column"):
        pl.attention(adata, groupby="no")
    with pytest.raises(KeyError, match="'scset_attention' is not a column"):
        pl.attention(adata, groupby="type", key="scset_attention")
    with pytest.raises(ValueError, match=r"adata.obs\['type'\] has the type category, but attention is a number"):
        pl.attention(adata, groupby="type", key="type")
    adata.obs["maestro_attention"] = np.nan
    with pytest.raises(ValueError, match="No cell has both a value"):
        pl.attention(adata, groupby="type")
