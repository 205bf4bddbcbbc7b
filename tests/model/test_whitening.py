"""Vectors whitened in part: the map against scipy and scikit-learn, and what it leaves alone."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import fractional_matrix_power
from scipy.stats import f_oneway
from sklearn.covariance import LedoitWolf

import scset_tools as sst
from scset_tools.model import _inference
from scset_tools.model._whitening import LEAST_RELIABILITY, PartialWhitening, batch_effects, noise_of_draws

MODELS = {
    "maestro": (sst.MAESTRO, {"n_hidden": 16, "n_latent": 8, "n_inducing": 4, "n_cells": 20}),
    "scset": (sst.ScSet, {"n_latent": 8, "n_hidden": 16, "n_cells": 20, "n_targets": 4}),
}
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "seed": 0}


@pytest.fixture(scope="module")
def cohort():
    return sst.datasets.perturbation_cohort(n_samples=9, n_cells=40, rng=0)


def trained(name, cohort, **arguments):
    cls, sizes = MODELS[name]
    cls.setup_anndata(cohort, "sample")
    model = cls(cohort, random_state=0, **sizes, **arguments)
    model.train(max_epochs=2, **QUIET)
    return model


@pytest.mark.parametrize("degree", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("n_samples", [5, 40])
def test_the_map_is_a_power_of_the_shrunk_covariance(degree, n_samples):
    z = np.random.default_rng(0).standard_normal((n_samples, 6)) * [10, 4, 2, 1, 0.5, 0.1] + 3
    whitening = PartialWhitening(6, degree).double()
    whitening.fit(z)
    expected = (z - z.mean(0)) @ fractional_matrix_power(LedoitWolf().fit(z).covariance_, -degree / 2)
    expected *= np.sqrt(z.var(0).sum() / expected.var(0).sum())
    found = whitening(torch.from_numpy(z))
    np.testing.assert_allclose(found, expected + z.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whitening.undo(found), z, rtol=1e-9, atol=1e-9)


def test_more_directions_count_after_it():
    z = np.random.default_rng(0).standard_normal((200, 10)) * 2.0 ** -np.arange(10)
    ranks = []
    for degree in (0.0, 0.5, 1.0):
        whitening = PartialWhitening(10, degree).double()
        whitening.fit(z)
        variance = np.linalg.eigvalsh(np.cov(whitening(torch.from_numpy(z)).numpy().T))
        ranks.append(variance.sum() ** 2 / np.square(variance).sum())
    assert ranks[0] < 2 < 2.5 < ranks[1] < 4 < ranks[2]


def test_directions_count_by_their_reliability():
    z = np.random.default_rng(0).standard_normal((200, 3)) * [4, 2, 1]
    z = np.linalg.qr(z - z.mean(0))[0] * np.sqrt(200) * [4, 2, 1]  # variances 16, 4 and 1, without covariance
    noise = np.diag([4.0, 2.0, 1.5])
    whitening, plain = (PartialWhitening(3, 0.5).double() for _ in range(2))
    whitening.fit(z, noise=noise)
    plain.fit(z)
    rho = LedoitWolf().fit(z).shrinkage_
    total, of_draws = ((1 - rho) * v + rho * v.mean() for v in (np.array([16.0, 4, 1]), noise.diagonal()))
    r = np.maximum(LEAST_RELIABILITY, 1 - of_draws / total)
    assert r[2] == LEAST_RELIABILITY
    ratio = np.diag(whitening.matrix) / np.diag(plain.matrix)
    np.testing.assert_allclose(ratio / ratio[0], r / r[0], rtol=1e-6)
    found = whitening(torch.from_numpy(z))
    np.testing.assert_allclose(found.var(0, correction=0).sum(), z.var(0).sum())  # as much variance as before
    np.testing.assert_allclose(whitening.undo(found), z, atol=1e-9)


def test_the_map_does_not_rest_on_rounding_where_samples_are_few():
    rng = np.random.default_rng(0)
    z, root = rng.standard_normal((5, 12)), rng.standard_normal((12, 12)) * np.logspace(0, -1, 12)
    noise, turn = root @ root.T / 12, np.linalg.qr(rng.standard_normal((12, 12)))[0]
    maps = []
    for basis in (
        np.eye(12),
        turn,
    ):  # the same vectors in other coordinates: the solver finds other axes of the null space
        whitening = PartialWhitening(12, 0.5).double()
        whitening.fit(z @ basis, noise=basis.T @ noise @ basis)
        maps.append(basis @ whitening.matrix.numpy() @ basis.T)
    np.testing.assert_allclose(*maps, rtol=1e-8, atol=1e-10)
    # nor are some of the directions along which no sample varies taken for more reliable than others
    null = np.linalg.svd(z - z.mean(0))[2][4:]
    inner = null @ maps[0] @ null.T
    np.testing.assert_allclose(inner, inner[0, 0] * np.eye(8), atol=1e-10)


@pytest.mark.parametrize("n_used", [40, 1000])
def test_noise_of_draws_is_that_of_the_mean_of_cells(n_used):
    rng = np.random.default_rng(0)
    root = np.array([[2.0, 0, 0], [1, 1, 0], [0, 0, 0.5]])
    sizes = rng.integers(40, 90, 4000)
    cells = [rng.standard_normal((n, 3)) @ root for n in sizes]
    first, second = (np.stack([c[rng.permutation(len(c))[:20]].mean(0) for c in cells]) for _ in range(2))
    found = noise_of_draws(first, second, sizes, n_drawn=20, n_used=n_used)
    expected = root.T @ root * np.mean(1 / np.minimum(sizes, n_used))
    np.testing.assert_allclose(found, expected, atol=0.05 * expected.max())


@pytest.mark.parametrize("z", [np.ones((2, 3)), np.eye(3)[:2], np.full((9, 3), 7.0)])
def test_without_a_spectrum_it_is_the_identity(z):
    whitening = PartialWhitening(3, 0.5)
    whitening.fit(np.random.default_rng(0).standard_normal((20, 3)))
    whitening.fit(z)
    other = torch.randn(4, 3)
    assert torch.equal(whitening(other), other)
    assert torch.equal(whitening.undo(other), other)


@pytest.mark.parametrize("name", MODELS)
def test_of_a_model_it_is_the_last_thing_done(name, cohort, tmp_path):
    plain, whitened = trained(name, cohort, whitening=0), trained(name, cohort)
    assert plain.module.whitening is None
    weights = dict(plain.module.state_dict())
    for key, value in whitened.module.state_dict().items():
        assert key.startswith("whitening.") or torch.equal(value, weights[key]), key
    z, found = (m.get_sample_representation().astype(float) for m in (plain, whitened))
    draws = [
        plain.get_sample_representation(n_cells=20, seed=seed).to_numpy() for seed in (1, 2)
    ]  # seed 0, plus 1 and 2
    expected = PartialWhitening(8, 0.5).double()
    expected.fit(z.to_numpy(), noise=noise_of_draws(*draws, np.full(9, 40), n_drawn=20, n_used=1000))
    expected = expected(torch.from_numpy(z.to_numpy())).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3 * z.std().max())
    whitened.save(tmp_path / "model", save_anndata=False)
    again = type(whitened).load(tmp_path / "model", cohort)
    np.testing.assert_array_equal(again.get_sample_representation(), whitened.get_sample_representation())


@pytest.mark.parametrize("name", MODELS)
def test_untrained_vectors_and_those_of_the_paper_stay_as_they_are(name, cohort):
    cls, sizes = MODELS[name]
    cls.setup_anndata(cohort, "sample")
    one, other = (cls(cohort, random_state=0, **sizes, whitening=degree) for degree in (0, 0.5))
    with pytest.warns(UserWarning, match="untrained|not trained|random weights"):
        np.testing.assert_array_equal(one.get_sample_representation(), other.get_sample_representation())
    assert cls.preset("paper").model["whitening"] == 0


@pytest.mark.parametrize("name", MODELS)
def test_what_was_saved_before_there_was_a_map_has_none(name, cohort):
    model = trained(name, cohort)
    old = {k: v for k, v in model.module.state_dict().items() if not k.startswith("whitening.")}
    fresh = type(model)(cohort, **MODELS[name][1])
    fresh.module.load_state_dict(old)
    assert torch.equal(fresh.module.whitening.matrix, torch.eye(8))


def test_cells_are_those_of_the_vector_before_it(cohort):
    plain, whitened = trained("scset", cohort, whitening=0), trained("scset", cohort)
    cells, same = (m.sample_cells(5, sample="sample_0", n_steps=5) for m in (plain, whitened))
    np.testing.assert_allclose(cells.X, same.X, atol=1e-3 * cells.X.std())
    z = whitened.get_sample_representation()
    again = whitened.sample_cells(5, representation=z.loc[["sample_0"]], n_steps=5)
    np.testing.assert_allclose(again.X, same.X, atol=1e-6)


def test_hidden_cells_are_predicted_as_before(cohort):
    plain, whitened = trained("maestro", cohort, whitening=0), trained("maestro", cohort)
    cells, same = (m.reconstruct("sample_0") for m in (plain, whitened))
    np.testing.assert_array_equal(cells.X, same.X)


@pytest.mark.parametrize("name", MODELS)
def test_a_training_that_goes_on_finds_it_anew(name, cohort):
    model = trained(name, cohort)
    before = model.module.whitening.matrix.clone()
    model.train(max_epochs=2, **QUIET)
    assert not torch.equal(before, model.module.whitening.matrix)
    z = model.get_sample_representation().to_numpy(float)
    np.testing.assert_allclose(z.mean(0), model.module.whitening.location, atol=1e-3)


def test_batch_effects_are_those_of_a_balanced_analysis_of_variance():
    rng = np.random.default_rng(0)
    batch = np.repeat([2, 0, 1], 6)
    z = rng.standard_normal((18, 1)) + np.array([0.0, 1.0, 2.0])[batch][:, None]
    f = f_oneway(*(z[batch == b, 0] for b in range(3))).statistic
    expected = [(1 - 1 / f) * (z[batch == b].mean() - z.mean()) for b in range(3)]
    np.testing.assert_allclose(batch_effects(z, batch, n_batches=4)[:, 0], [*expected, 0])


@pytest.mark.parametrize("batch", [np.zeros(6, int), np.arange(6), np.array([0, 1, 0, 1, 0, 1])])
def test_batches_that_do_not_differ_add_nothing(batch):
    z = np.array([[1.0, -1, 2, -2, 3, -3]]).T.repeat(2, axis=1)
    z[batch == 1] = z[batch == 0][: (batch == 1).sum()] if (batch == 1).sum() == 3 else z[batch == 1]
    assert not batch_effects(z, batch, n_batches=6).any()


@pytest.mark.parametrize("name", MODELS)
def test_vectors_are_about_the_mean_of_their_batch(name, monkeypatch):
    """Two batches that differ in the shares of their kinds of cells, which no mean and spread of a feature takes out."""
    cohort = sst.datasets.perturbation_cohort(n_samples=12, n_cells=60, rng=0)
    names = list(dict.fromkeys(cohort.obs["sample"]))
    batch = pd.Series(["a", "b"] * 6, index=names)
    cohort.obs["batch"] = cohort.obs["sample"].map(batch).astype(str).astype("category")
    is_second = (cohort.obs["batch"] == "b").to_numpy()
    cohort.X[is_second] = np.abs(cohort.X[is_second]) ** 1.5  # another shape
    cls, sizes = MODELS[name]

    def vectors(whitening):
        cls.setup_anndata(cohort, "sample", batch_key="batch")
        model = cls(cohort, random_state=0, **sizes, whitening=whitening)
        model.train(max_epochs=2, **QUIET)
        return model, model.get_sample_representation().loc[names]

    def share(z):
        """Of the variance of vectors, between batches."""
        effects = z.groupby(batch).transform("mean") - z.mean()
        return np.square(effects).to_numpy().sum() / np.square(z - z.mean()).to_numpy().sum()

    plain, found = vectors(0)[1], vectors(1e-9)
    model, z = found
    assert share(plain) > 0.3
    assert share(z) < 0.02
    expected = batch_effects(plain.to_numpy(float), (batch == "b").to_numpy(int), n_batches=2)
    np.testing.assert_allclose(model.module.whitening.shift, expected, atol=1e-3 * np.abs(expected).max())
    monkeypatch.setattr(_inference, "MAX_CELLS", 25)  # in pieces
    np.testing.assert_allclose(model.get_sample_representation().loc[names], z, atol=1e-4 * z.to_numpy().std())
