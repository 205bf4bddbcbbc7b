"""Resampling with both margins even, steps of resampled epochs, and the best epoch kept."""

from __future__ import annotations

import numpy as np
import pytest
from test_pascient import SMALL, counts_cohort, fit

import scset_tools as sst
from scset_tools.model.pascient._raking import rake, raked_sizes, warn_of_uneven
from scset_tools.model.pascient._sampler import PaSCientSplitter, ResampledBatchSampler


def test_raked_shares_are_those_of_the_nearest_table_with_even_margins():
    counts = np.array([[30, 5, 0], [10, 10, 10], [2, 0, 8]])
    share = rake(counts)
    np.testing.assert_allclose(share.sum(0), 1 / 3, atol=1e-9)
    np.testing.assert_allclose(share.sum(1), 1 / 3, atol=1e-9)
    assert (share[counts == 0] == 0).all()
    # what is nearest in relative entropy has the odds ratios of the counts, wherever there are four cells of a rectangle
    np.testing.assert_allclose(share[0, 0] * share[1, 1] / (share[0, 1] * share[1, 0]), 30 * 10 / (5 * 10))
    np.testing.assert_allclose(share[1, 0] * share[2, 2] / (share[1, 2] * share[2, 0]), 10 * 8 / (10 * 2))
    sizes = raked_sizes(counts, share)
    assert sizes.sum() == 3 * 35  # as many as if labels alone were oversampled
    assert np.abs(sizes.sum(0) - 35).max() <= 1
    assert np.abs(sizes.sum(1) - 35).max() <= 1
    assert ((sizes > 0) == (counts > 0)).all()


def test_a_label_in_many_tissues_weighs_no_more():
    """Pairs of equal share: a label in nine of ten tissues has nine tenths of an epoch; raked, each label has half."""
    label, tissue = np.repeat([0, 1], [90, 10]), np.r_[np.tile(np.arange(9), 10), np.repeat(9, 10)]
    counts = np.bincount(label * 10 + tissue, minlength=20).reshape(2, 10)
    np.testing.assert_allclose(rake(counts).sum(1), 0.5)
    with pytest.warns(UserWarning, match=r"of the tissues, which should have 10.0% each, 10 do not: \['t0 \(5.6%\)'"):
        warn_of_uneven(rake(counts), [f"t{i}" for i in range(10)])


def test_a_raked_epoch_has_even_margins():
    rng = np.random.default_rng(0)
    counts = np.array([[30, 5, 0], [10, 10, 10], [2, 0, 8]])
    strata = rng.permutation(np.repeat(np.arange(9), counts.ravel()))
    n_of_stratum = dict(enumerate(raked_sizes(counts, rake(counts)).ravel()))
    n_of_stratum = {code: int(n) for code, n in n_of_stratum.items() if n}
    sampler = ResampledBatchSampler(
        np.arange(75),
        np.full(75, 10),
        strata=strata,
        is_downsampling=False,
        n_of_stratum=n_of_stratum,
        batch_size=8,
        shuffle=True,
        seed=0,
    )
    seen = strata[np.array([n for _, batch in sampler for n in batch]) % 75]
    assert dict(zip(*np.unique(seen, return_counts=True), strict=True)) == n_of_stratum


def test_the_best_epoch_is_kept_and_steps_are_those_of_the_samples():
    adata = counts_cohort(12)
    adata.obs["site"] = np.where(adata.obs["sample"].isin(["s00", "s01", "s02", "s03"]), "x", "y")
    names = [[f"s{i:02d}" for i in (0, 1, 2, 4, 6)], ["s03", "s05", "s08"]]
    options = {"build": {"log_normalize": True}, "external_indexing": names, "max_epochs": 6, "tissue_key": "site"}
    model = fit(adata, **options, resampling="rake_label_and_tissue", keep_best="loss_validation")
    losses = model.history["loss_validation"].iloc[:, 0].astype(float)
    p = model.predict_proba(samples=model.validation_samples_)
    truth = adata.obs.groupby("sample", observed=True)["condition"].first().loc[p.index]
    loss = -np.log([row[c] for (_, row), c in zip(p.iterrows(), truth, strict=True)]).mean()
    np.testing.assert_allclose(loss, losses.min(), rtol=0.05)
    with pytest.raises(ValueError, match="keep_best='f1' is not a metric of this model"):
        fit(adata, **options, keep_best="f1")
    with pytest.raises(ValueError, match="watches 'accuracy_validation', but there are no validation samples"):
        fit(adata, **{**options, "external_indexing": names[:1]}, keep_best=True)


@pytest.mark.parametrize("resampling", ["none", "oversample_label", "rake_label_and_tissue"])
def test_resampling_does_not_multiply_the_steps_of_a_default_training(resampling):
    adata = counts_cohort(12)
    sst.PaSCient.setup_anndata(adata, "sample", labels_key="condition")
    model = sst.PaSCient(adata, **SMALL, log_normalize=True)
    splitter = PaSCientSplitter(
        model.adata_manager, resampling=resampling, tissue_key="study", label_registry_key="labels", batch_size=1
    )
    assert splitter.n_plain_batches() == 12
    assert model._default_steps(splitter) == 400
