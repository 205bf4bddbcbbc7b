from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scset_tools import tl


def generated(n_draws: int = 4, seed: int = 0) -> AnnData:
    """Two samples of 20 cells in two arms; T cells go from 5 to 10, and the first feature of B cells up by the draw."""
    rng = np.random.default_rng(seed)
    blocks, obs = [], []
    for draw in range(n_draws):
        for arm, n_t in (("own", 5), ("asked", 10)):
            for sample in ("a", "b"):
                types = np.array(["T"] * n_t + ["B"] * (20 - n_t))
                x = rng.normal(size=(20, 3))
                x[:, 0] = np.where((types == "B") & (arm == "asked"), 2.0 + draw, 0.0)
                blocks.append(x)
                obs.append(pd.DataFrame({"sample": sample, "arm": arm, "draw": draw, "cell_type": types}))
    obs = pd.concat(obs, ignore_index=True)
    obs.index = obs.index.astype(str)
    return AnnData(np.concatenate(blocks), obs=obs, var=pd.DataFrame(index=["g0", "g1", "g2"]))


def test_shifts_are_means_over_samples_with_quantiles_over_draws():
    adata = generated()
    found = tl.counterfactual_shifts(adata, "cell_type", level=0.5)
    assert found.n_draws == 4
    assert found.n_samples.to_dict() == {"B": 2, "T": 2}
    np.testing.assert_allclose(found.composition.loc["T", ["own", "asked", "shift"]], [0.25, 0.5, 0.25])
    np.testing.assert_allclose(found.composition["ci_low"], found.composition["shift"])  # the same in every draw
    first = found.expression.set_index(["cell_type", "feature"]).loc[("B", "g0")]
    np.testing.assert_allclose(first[["own", "asked", "shift"]], [0, 3.5, 3.5])
    np.testing.assert_allclose(first[["ci_low", "ci_high"]], np.quantile([2, 3, 4, 5], [0.25, 0.75]))
    # against a plain loop
    x = adata.to_df().assign(**adata.obs)
    mean = x[x["cell_type"] == "T"].groupby(["draw", "arm", "sample"])["g2"].mean().unstack("arm")
    want = (mean["asked"] - mean["own"]).groupby("draw").mean().mean()
    np.testing.assert_allclose(found.table().loc["T", "g2"], want)
    assert found.table("own").shape == (2, 3)
    assert "CounterfactualShifts" in repr(found)


def test_order_of_rows_means_nothing():
    adata = generated()
    other = adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()
    a, b = (tl.counterfactual_shifts(d, "cell_type") for d in (adata, other))
    pd.testing.assert_frame_equal(a.composition, b.composition)
    pd.testing.assert_frame_equal(a.table(), b.table())


def test_small_groups_are_left_out_and_one_draw_has_no_interval():
    found = tl.counterfactual_shifts(generated(1), "cell_type", min_cells=6)
    assert found.n_samples.to_dict() == {"B": 2, "T": 0}
    assert set(found.expression["cell_type"]) == {"B"}
    assert found.composition["ci_low"].isna().all()
    with pytest.raises(ValueError, match="No sample has min_cells=30 cells of any type in both arms"):
        tl.counterfactual_shifts(generated(1), "cell_type", min_cells=30)


def test_what_is_refused():
    adata = generated(1)
    with pytest.raises(KeyError, match="'type' is not a column"):
        tl.counterfactual_shifts(adata, "type")
    with pytest.raises(ValueError, match=r"adata.obs\['arm'\] holds \['own'\], but must hold 'own' and 'asked'"):
        tl.counterfactual_shifts(adata[adata.obs["arm"] == "own"].copy(), "cell_type")
    with pytest.raises(ValueError, match=r"level=1\.0 must be a number between 0 and 1"):
        tl.counterfactual_shifts(adata, "cell_type", level=1.0)
    with pytest.raises(ValueError, match=r"column='median' is not one of"):
        tl.counterfactual_shifts(adata, "cell_type").table("median")
