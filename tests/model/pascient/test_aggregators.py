"""Aggregators inside the model, resampling, and the published checkpoint against a forward pass of its own."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from test_pascient import SMALL, counts_cohort, fit
from torch import nn

import scset_tools as sst
from scset_tools.model.pascient._aggregators import AGGREGATORS, make_aggregator
from scset_tools.model.pascient._sampler import RepeatedDraws, ResampledBatchSampler, resampled_order
from scset_tools.nn import ptr_from_sizes

# ---- aggregators


def made(name, n_slots=None):
    torch.manual_seed(0)
    options = {"n_heads": 2, "n_layers": 2, "n_inducing": 3, "dropout_rate": 0.0}
    return make_aggregator(name, 8, **options, n_slots=n_slots).double().eval()


@pytest.mark.parametrize("name", AGGREGATORS)
def test_batch_mates_order_and_pieces_do_not_matter(name):
    aggregator = made(name)
    h = torch.randn(15, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ptr = ptr_from_sizes([9, 1, 5])
    together = aggregator(h, ptr)
    assert together.shape == (3, 8)
    for i, part in enumerate(h.split([9, 1, 5])):
        alone = aggregator(part, ptr_from_sizes([len(part)]))
        torch.testing.assert_close(alone[0], together[i])
        shuffled = part[torch.randperm(len(part), generator=torch.Generator().manual_seed(2))]
        torch.testing.assert_close(aggregator(shuffled, ptr_from_sizes([len(part)]))[0], together[i])
        pieces = aggregator.in_pieces(lambda part=part: iter(part.split(2)))
        torch.testing.assert_close(pieces[0], together[i])
        weights = aggregator.weights(part, ptr_from_sizes([len(part)]))
        torch.testing.assert_close(aggregator.weights_in_pieces(lambda part=part: iter(part.split(2))), weights)
        if name != "sum":
            torch.testing.assert_close(weights.sum(0), torch.ones_like(weights[0]))


def test_the_transformer_is_the_mean_of_mixed_cells():
    aggregator = made("transformer")
    h = torch.randn(6, 8, dtype=torch.float64)
    mixed = h
    for layer in aggregator.layers:
        mixed = layer(mixed)
    torch.testing.assert_close(aggregator(h, ptr_from_sizes([6]))[0], mixed.mean(0))


@pytest.mark.parametrize("name", ["attention", "feature_softmax"])
def test_empty_slots_get_their_share_if_asked(name):
    aggregator = made(name, n_slots=7)
    h, empty = torch.randn(5, 8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    padded = torch.cat([h[:3], empty.expand(4, 8)])
    want = aggregator.pool(padded, ptr_from_sizes([7]))[0]
    got = aggregator(h, ptr_from_sizes([3, 2]), empty)
    torch.testing.assert_close(got[:1], want)
    full = torch.randn(7, 8, dtype=torch.float64)
    torch.testing.assert_close(
        aggregator(full, ptr_from_sizes([7]), empty), aggregator.pool(full, ptr_from_sizes([7]))[0]
    )
    torch.testing.assert_close(aggregator.in_pieces(lambda: iter(h[:3].split(2)), empty), want)


@pytest.mark.parametrize("name", [a for a in AGGREGATORS if a != "attention"])
def test_every_aggregator_trains(name):
    build = {"aggregator": name, "log_normalize": True, "n_heads": 2, "n_inducing": 4}
    model = fit(counts_cohort(), build=build, max_epochs=15, plan_kwargs={"lr": 5e-3})
    assert np.isfinite(model.history["loss_train"].to_numpy()).all()
    assert np.isfinite(model.predict_proba().to_numpy()).all()
    found = model.get_attributions("condition", reference="control", samples=["s01", "s03"])
    assert found.completeness_error["case"].max() <= 0.01


def test_a_deeper_cell_encoder_keeps_its_first_layer_linear():
    build = {"n_encoder_layers": 2, "log_normalize": True}
    model = fit(counts_cohort(), build=build, max_epochs=15, plan_kwargs={"lr": 5e-3})
    assert [type(m).__name__ for m in model.module.rest] == ["PReLU", "Linear"] * 2
    found = model.get_attributions("condition", reference="control", samples=["s01"])
    assert found.completeness_error["case"].max() <= 0.01


# ---- resampling

STRATA = np.array([0] * 7 + [1] * 2 + [2] * 3 + [-1])


@pytest.mark.parametrize("is_downsampling", [False, True])
def test_every_stratum_has_the_same_share(is_downsampling):
    samples = np.arange(13) + 100
    seen = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        order, repeat = resampled_order(samples, STRATA, is_downsampling=is_downsampling, rng=rng)
        strata = STRATA[order - 100]
        assert np.unique(strata, return_counts=True)[1].tolist() == ([1, 2, 2, 2] if is_downsampling else [1, 7, 7, 7])
        times = pd.Series(order).value_counts()
        for s in range(3):
            own = times.reindex(samples[STRATA == s], fill_value=0)
            assert own.max() - own.min() <= 1
        keys = list(zip(order.tolist(), repeat.tolist(), strict=True))
        assert len(set(keys)) == len(keys)
        seen.append(tuple(order))
    assert len(set(seen)) == 4


def test_batches_are_resampled_anew_in_each_epoch_and_on_each_rank():
    sizes = np.full(20, 10)
    options = {"strata": STRATA, "is_downsampling": False, "batch_size": 4, "shuffle": True, "seed": 3}
    sampler = ResampledBatchSampler(np.arange(13), sizes, **options)
    first = [n for _, batch in sampler for n in batch]
    assert len(first) == 22
    assert np.bincount(STRATA[np.array(first) % 20][STRATA[np.array(first) % 20] >= 0]).tolist() == [7, 7, 7]
    sampler.set_epoch(1)
    assert [n for _, batch in sampler for n in batch] != first
    ranks = [ResampledBatchSampler(np.arange(13), sizes, **options, num_replicas=2, rank=r) for r in (0, 1)]
    assert len(ranks[0]) == len(ranks[1])
    both = sorted(n for r in ranks for _, batch in r for n in batch)
    assert both == sorted(first)


def test_a_repeated_sample_draws_other_cells():
    adata = counts_cohort()
    sst.PaSCient.setup_anndata(adata, "sample", labels_key="condition")
    model = sst.PaSCient(adata, **SMALL, log_normalize=True)
    dataset = RepeatedDraws(model.adata_manager, n_cells=8, seed=0, sparse=True)
    batch = dataset[0, [1, 1 + len(dataset), 1]]
    rows = batch.rows.split([8, 8, 8])
    assert torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0], rows[1])
    own = set(np.flatnonzero(adata.obs["sample"] == "s01"))
    assert set(rows[1].tolist()) <= own
    assert batch.sample.tolist() == [1, 1, 1]
    assert batch.seed[0] == batch.seed[2] != batch.seed[1]
    assert len(set(batch.labels["labels"].tolist())) == 1


@pytest.mark.parametrize(
    "resampling", ["downsample_label", "oversample_label", "oversample_tissue", "oversample_label_and_tissue"]
)
def test_only_training_samples_are_resampled(resampling):
    adata = counts_cohort(12)
    names = [[f"s{i:02d}" for i in (0, 1, 2, 4, 6)], ["s03", "s05", "s08"]]
    seen = {"train": [], "validation": []}

    class Spy(sst.PaSCient._module_cls):
        def loss(self, batch):
            seen["train" if self.training else "validation"] += batch.sample.tolist()
            return super().loss(batch)

    sst.PaSCient.setup_anndata(adata, "sample", labels_key="condition")
    model = sst.PaSCient(adata, **SMALL, log_normalize=True)
    model.module.__class__ = Spy
    model.train(
        1,
        batch_size=4,
        external_indexing=names,
        seed=0,
        resampling=resampling,
        tissue_key="study",
        enable_progress_bar=False,
        accelerator="cpu",
    )
    counts = pd.Series(seen["train"]).value_counts()
    assert set(counts.index) <= {0, 1, 2, 4, 6}
    expected = {"downsample_label": 2, "oversample_label": 8, "oversample_tissue": 6, "oversample_label_and_tissue": 8}
    assert counts.sum() == expected[resampling]
    assert set(seen["validation"]) == {3, 5, 8}


def test_resampling_needs_its_columns():
    adata = counts_cohort()
    with pytest.raises(ValueError, match="resampling='oversample_tissue' needs `tissue_key`"):
        fit(adata, build={"log_normalize": True}, resampling="oversample_tissue")
    with pytest.raises(ValueError, match="resampling='often' is not one of"):
        fit(adata, build={"log_normalize": True}, resampling="often")
    with pytest.raises(ValueError, match="needs a target with classes"):
        fit(adata, build={"log_normalize": True}, labels_key={"age": "continuous"}, resampling="oversample_label")


# ---- the published checkpoint

GENES = [f"GENE{i}" for i in range(11)]


class Published(nn.Module):
    """The published network as its state dict describes it, on padded samples, softmax over all slots."""

    def __init__(self, n_classes=9):
        super().__init__()
        torch.manual_seed(0)
        stack = {
            "gene2cell_encoder": [nn.Linear(11, 6)],
            "cell2patient_aggregation.attention_model": [nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1)],
            "patient_encoder": [nn.Linear(6, 4), nn.PReLU(), nn.Linear(4, 4), nn.PReLU()],
            "patient_predictor": [nn.Linear(4, n_classes)],
        }
        self.parts = {name: nn.Sequential(*layers) for name, layers in stack.items()}

    def state(self):
        out = {
            f"{name}.layers.{key}": value
            for name, part in self.parts.items()
            for key, value in part.state_dict().items()
        }
        return {**out, "sample_prediction_loss_func.weight": torch.ones(9)}

    def forward(self, x, is_real=None):
        h = self.parts["gene2cell_encoder"](x)
        scores = self.parts["cell2patient_aggregation.attention_model"](h)
        if is_real is not None:
            scores = scores.masked_fill(~is_real[:, None], -torch.inf)
        pooled = (scores.softmax(0) * h).sum(0)
        return self.parts["patient_predictor"](self.parts["patient_encoder"](pooled)).softmax(-1)


def published_cells():
    adata = counts_cohort(4)
    x = adata.X[:, [i % 8 for i in range(13)]]
    return ad.AnnData(x, obs=adata.obs, var=pd.DataFrame(index=[*reversed(GENES), "OTHER_A", "OTHER_B"]))


def padded(adata, sample, n_slots):
    own = adata[(adata.obs["sample"] == sample).to_numpy(), GENES].X.toarray()
    x = np.log1p(own / own.sum(axis=1, keepdims=True) * 1e4)
    out = np.zeros((n_slots, len(GENES)), dtype=np.float32)
    out[: len(x)] = x
    return torch.from_numpy(out), torch.arange(n_slots) < len(x)


@pytest.mark.parametrize("mask_padding", [True, False])
def test_a_published_checkpoint_gives_its_own_predictions(mask_padding, tmp_path):
    theirs, adata = Published(), published_cells()
    torch.save({"state_dict": theirs.state(), "epoch": 3, "hyper_parameters": {"lr": 1e-4}}, tmp_path / "a.ckpt")
    model = sst.PaSCient.from_checkpoint(
        tmp_path / "a.ckpt", GENES, adata, sample_key="sample", mask_padding=mask_padding, n_slots=50
    )
    p = model.predict_proba()
    assert list(p.columns)[:5] == ["Alzheimer's", "B-ALL", "COVID-19", "Crohn's", "healthy"]
    with torch.no_grad():
        for sample in p.index:
            x, is_real = padded(adata, sample, 50)
            want = theirs(x, is_real if mask_padding else None)
            np.testing.assert_allclose(p.loc[sample], want, rtol=1e-4, atol=1e-5)
    assert model.gene_coverage_["coverage"].item() == 1.0
    model.save(tmp_path / "m", save_anndata=True)
    again = sst.PaSCient.load(tmp_path / "m")
    pd.testing.assert_frame_equal(again.predict_proba(), p)
    with pytest.raises(ValueError, match="published weights and no labels to learn from"):
        model.train(1)
    assert (
        model.get_attributions("disease", target="COVID-19", reference="healthy").completeness_error["COVID-19"].max()
        < 0.05
    )


def test_missing_genes_are_reported(tmp_path):
    torch.save(Published().state(), tmp_path / "a.pt")
    adata = published_cells()[:, 2:].copy()
    with pytest.warns(UserWarning, match="2 of the model's 11 genes are not in adata.var_names"):
        model = sst.PaSCient.from_checkpoint(tmp_path / "a.pt", GENES, adata, sample_key="sample")
    report = model.gene_coverage_.iloc[0]
    assert (report["n_genes"], report["n_found"], report["first_missing"]) == (11, 9, "GENE9;GENE10")


def test_the_binary_checkpoint_has_no_attention_network(tmp_path):
    state = {k: v for k, v in Published(2).state().items() if "attention" not in k and "loss" not in k}
    torch.save(state, tmp_path / "a.pt")
    adata = published_cells()
    model = sst.PaSCient.from_checkpoint(
        tmp_path / "a.pt", GENES, adata, sample_key="sample", classes=["healthy", "COVID-19"]
    )
    assert type(model.module.aggregator.pool).__name__ == "FeatureSoftmaxPool"
    assert list(model.predict_proba().columns) == ["healthy", "COVID-19"]
    with pytest.raises(ValueError, match="has 2 outputs, but 0 class names were given"):
        sst.PaSCient.from_checkpoint(tmp_path / "a.pt", GENES, adata, sample_key="sample")


class Foreign:
    """Something that a safe reader must not build."""


def test_what_is_no_such_checkpoint_is_refused(tmp_path):
    adata, state = published_cells(), Published().state()
    torch.save({"state_dict": state, "hyper_parameters": Foreign()}, tmp_path / "code.ckpt")
    with pytest.raises(ValueError, match="running code from a file is not safe"):
        sst.PaSCient.from_checkpoint(tmp_path / "code.ckpt", GENES, adata, sample_key="sample")
    fewer = {k: v for k, v in state.items() if not k.startswith("patient_predictor")} | {"other": torch.ones(1)}
    torch.save(fewer, tmp_path / "fewer.pt")
    with pytest.raises(ValueError, match=r"2 tensors are missing .*1 are unknown .*'other'"):
        sst.PaSCient.from_checkpoint(tmp_path / "fewer.pt", GENES, adata, sample_key="sample")
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="reads 11 genes, but 10 names were given"):
        sst.PaSCient.from_checkpoint(tmp_path / "a.pt", GENES[:-1], adata, sample_key="sample")
    with pytest.raises(ValueError, match="genes has 1 names more than once"):
        sst.PaSCient.from_checkpoint(tmp_path / "a.pt", [*GENES[:-1], "GENE0"], adata, sample_key="sample")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="has no `state_dict` of tensors"):
        sst.PaSCient.from_checkpoint(tmp_path / "tensor.pt", GENES, adata, sample_key="sample")
