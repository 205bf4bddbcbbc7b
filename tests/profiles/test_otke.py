from __future__ import annotations

import anndata as ad
import numpy as np
import ot
import pytest
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans

from scset_tools import profiles
from scset_tools.profiles import _transport
from scset_tools.profiles._transport import transport_plan

SMALL = {"sample_key": "sample", "n_points": 4, "n_anchors": 6}


def _scaling_loop(cost: np.ndarray, epsilon: float, n_steps: int = 3000) -> np.ndarray:
    """Sinkhorn's scaling, written out."""
    n, p = cost.shape
    kernel, v = np.exp(-cost / epsilon), np.ones(p)
    for _ in range(n_steps):
        u = 1 / n / (kernel @ v)
        v = 1 / p / (kernel.T @ u)
    return u[:, None] * kernel * v


@pytest.mark.parametrize("n", [1, 2, 37])
def test_plan_equals_scaling_loop_and_has_its_margins(n: int) -> None:
    cost = np.random.default_rng(n).normal(size=(n, 5))
    plan = transport_plan(cost, 0.3)
    np.testing.assert_allclose(plan, _scaling_loop(cost, 0.3), atol=1e-6)
    np.testing.assert_allclose(plan.sum(1), 1 / n, atol=1e-6)
    np.testing.assert_allclose(plan.sum(0), 1 / 5, atol=1e-6)


def test_plan_minimises_the_entropic_problem() -> None:
    cost, epsilon = np.random.default_rng(0).normal(size=(3, 2)), 0.4
    plan = transport_plan(cost, epsilon)

    def objective(flat: np.ndarray) -> float:
        return float((flat * cost.ravel()).sum() + epsilon * (flat * np.log(flat)).sum())

    margins = [{"type": "eq", "fun": lambda f, i=i: f.reshape(3, 2)[i].sum() - 1 / 3} for i in range(3)]
    margins += [{"type": "eq", "fun": lambda f: f.reshape(3, 2)[:, 0].sum() - 1 / 2}]
    best = minimize(
        objective, np.full(6, 1 / 6), bounds=[(1e-9, 1)] * 6, constraints=margins, method="SLSQP", tol=1e-12
    )
    np.testing.assert_allclose(plan.ravel(), best.x, atol=1e-4)


def test_logarithmic_domain_agrees_and_takes_over_where_numbers_get_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = np.random.default_rng(2).normal(size=(20, 4))
    expected = transport_plan(cost, 0.2)
    monkeypatch.setattr(_transport, "_MAX_EXPONENT", 0.0)
    np.testing.assert_allclose(transport_plan(cost, 0.2), expected, atol=1e-6)
    monkeypatch.undo()
    far = transport_plan(cost * 1e4, 0.2 * 50)  # exponents up to 4,000
    assert np.isfinite(far).all()
    exact = ot.emd(np.full(20, 1 / 20), np.full(4, 1 / 4), cost)
    assert (far * cost).sum() == pytest.approx((exact * cost).sum(), rel=2e-2)


@pytest.mark.parametrize("kernel", ["linear", "gaussian"])
@pytest.mark.parametrize("n_references", [1, 2])
def test_embedding_equals_loop_over_the_formula(adata: ad.AnnData, kernel: str, n_references: int) -> None:
    profile = profiles.OTKE(**SMALL, kernel=kernel, n_references=n_references, epsilon=0.2).fit(adata)
    out = profile.transform(adata)
    x = (adata.X - adata.X.mean(0)) / adata.X.std(0)
    if kernel == "linear":
        features = x / np.sqrt(5)
    else:
        anchors, sigma = profile.anchors_, profile.bandwidth_
        gram = np.exp(-(cdist(anchors, anchors) ** 2) / (2 * sigma**2))
        cross = np.exp(-(cdist(x, anchors) ** 2) / (2 * sigma**2))
        features = np.linalg.solve(
            np.linalg.cholesky(gram), cross.T
        ).T  # any root of the inverse: rotated to the symmetric one
        values, vectors = np.linalg.eigh(gram)
        features = features @ (np.linalg.cholesky(gram).T @ (vectors / np.sqrt(values)) @ vectors.T)
    for i, name in enumerate(out.obs_names):
        cells = features[(adata.obs["sample"] == name).to_numpy()]
        expected = []
        for z in profile.references_:
            plan = _scaling_loop(-cells @ z.T, 0.2)
            expected += [np.sqrt(4) * sum(plan[c, j] * cells[c] for c in range(len(cells))) for j in range(4)]
        np.testing.assert_allclose(out.X[i], np.concatenate(expected) / np.sqrt(n_references), atol=1e-4)


def test_kernel_features_give_the_kernel(adata: ad.AnnData) -> None:
    profile = profiles.OTKE(sample_key="sample", n_points=2, n_anchors=200).fit(
        adata
    )  # as many anchors as cells: exact
    x = profile._scaled(adata.X)
    features = profile._features(adata.X)
    expected = np.exp(-(cdist(x, x) ** 2) / (2 * profile.bandwidth_**2))
    np.testing.assert_allclose(features @ features.T, expected, atol=1e-3)


def test_references_are_a_fixed_point_of_the_barycentre_update(adata: ad.AnnData) -> None:
    profile = profiles.OTKE(**SMALL, kernel="linear", epsilon=0.2, n_steps=500).fit(adata)
    z = profile.references_[0]
    features = profile._features(adata.X)
    moved = []
    for name in adata.obs["sample"].unique():
        cells = features[(adata.obs["sample"] == name).to_numpy()]
        moved.append(4 * _scaling_loop(-cells @ z.T, 0.2).T @ cells)
    np.testing.assert_allclose(np.mean(moved, axis=0), z, atol=1e-3)
    start = profiles.OTKE(**SMALL, kernel="linear", epsilon=0.2, n_steps=0).fit(adata).references_[0]
    assert np.abs(start - z).max() > 0.01


def test_one_reference_of_equal_sets_is_their_own_points() -> None:
    # three identical sets of four distant cells: the barycentre is the set
    points = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], dtype=np.float32)
    adata = ad.AnnData(np.tile(points, (3, 1)), obs={"sample": np.repeat(["a", "b", "c"], 4)})
    profile = profiles.OTKE(sample_key="sample", n_points=4, kernel="linear", epsilon=0.01).fit(adata)
    expected = (points - points.mean(0)) / points.std(0) / np.sqrt(2)
    found = profile.references_[0]
    np.testing.assert_allclose(cdist(expected, found).min(1), 0, atol=1e-4)


def test_two_references_part_two_kinds_of_samples() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(20, 3)) + 10 * (i % 2) for i in range(8)]).astype(np.float32)
    adata = ad.AnnData(x, obs={"sample": np.repeat([f"s{i}" for i in range(8)], 20)})
    profile = profiles.OTKE(sample_key="sample", n_points=3, n_references=2, kernel="linear").fit(adata)
    centres = np.sort(profile.references_.mean((1, 2)))
    by_kind = [
        profile._features(x[adata.obs["sample"].isin([f"s{i}" for i in k]).to_numpy()]).mean()
        for k in ((0, 2, 4, 6), (1, 3, 5, 7))
    ]
    np.testing.assert_allclose(centres, np.sort(by_kind), atol=0.05)
    assert KMeans(2, n_init=3, random_state=0).fit_predict(profile.transform(adata).X).tolist() in (
        [0, 1] * 4,
        [1, 0] * 4,
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"kernel": "cubic"}, "kernel must be 'linear' or 'gaussian', but is 'cubic'"),
        ({"epsilon": 0}, "epsilon=0 must be a finite number above 0"),
        ({"bandwidth": -1.0}, "bandwidth=-1.0 must be a finite number above 0"),
        ({"n_references": 7}, "between 1 and the number of training samples, but is 7 for 6 samples"),
        ({"n_points": 500}, "between 1 and the number of training cells, but is 500 for 141 cells"),
    ],
)
def test_errors(adata: ad.AnnData, args: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        profiles.otke(adata, **(SMALL | args))
