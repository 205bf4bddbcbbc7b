"""Covariates that ScSet's decoder is told: the loss against a slow loop, guidance, and what is refused. Registration: ``test_covariates``."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from _cohort import FIT, make_cohort

import scset_tools as sst
from scset_tools.model._conditions import Conditions, dependence, values_in
from scset_tools.model.scset._generation import generate
from scset_tools.nn import cell_normal, ddim_steps, ptr_from_sizes

SMALL = {"n_hidden": 16, "n_latent": 6, "n_cells": 20, "n_heads": 2, "random_state": 0}
KEYS = {"condition": "class", "age": "continuous", "cell_type": "cell"}


def build(adata=None, keys=KEYS, **arguments):
    adata = make_cohort() if adata is None else adata
    sst.ScSet.setup_anndata(adata, "sample", covariate_keys=keys)
    return sst.ScSet(adata, **{**SMALL, **arguments})


@pytest.fixture(scope="module")
def model():
    """Trained for two epochs; shared, not to be trained further."""
    model = build()
    model.train(**FIT)
    return model


# ---- network and loss


def test_embeddings_of_what_is_said_and_unsaid_are_added():
    torch.manual_seed(0)
    conditions = Conditions([3, 0], 4, moments=torch.tensor([[0.0, 1.0], [10.0, 2.0]]), dropout_rate=0.0)
    torch.nn.init.normal_(conditions.unsaid)
    nan = float("nan")
    out = conditions(torch.tensor([[2.0, 14.0], [nan, 14.0], [nan, nan]], dtype=torch.float64))
    number = conditions.embeddings[1](torch.tensor([2.0]))
    for row, parts in enumerate(
        [(conditions.embeddings[0].weight[2], number), (conditions.unsaid[0], number), tuple(conditions.unsaid)]
    ):
        torch.testing.assert_close(out[row], parts[0] + parts[1])
    out.sum().backward()  # a NaN that is not used leaves no NaN in a gradient
    assert all(torch.isfinite(p.grad).all() for p in conditions.parameters())


def test_as_much_is_left_unsaid_as_asked():
    conditions = Conditions([2, 2], 4, moments=torch.tensor([[0.0, 1.0]] * 2), dropout_rate=0.2)
    said = ~conditions.drop(torch.zeros(20_000, 2, dtype=torch.float64), torch.arange(20_000)).isnan().numpy()
    assert abs(said.mean(0) - 0.8 * 0.8).max() < 0.01
    assert abs((~said).all(1).mean() - (0.2 + 0.8 * 0.2 * 0.2)) < 0.01


def test_the_loss_tells_each_cell_what_it_is_told(model):
    """The rows given to the denoiser, against a loop over target cells."""
    module = model.module.double()
    try:
        batch = model._dataset(model.adata)[0, [3, 1, 4]]
        z = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        _, _, targets, ptr = module.split(batch.ptr, batch.seed)
        told, which = module._told(batch, targets, z, ptr)
        values = module.conditions.drop(values_in(batch, module.covariates), batch.seed)
        hides_type = module.conditions.drop(torch.zeros(3, 3, dtype=torch.float64), batch.seed)[:, 2].isnan()
        obs = model.adata.obs.iloc[batch.rows[targets].numpy()]
        sample = np.repeat([0, 1, 2], ptr.diff())
        for i in range(len(targets)):
            value = values[sample[i]].clone()
            if not hides_type[sample[i]]:
                value[2] = ["B", "T"].index(obs["cell_type"].iloc[i])
            want = z[sample[i]] + module.conditions(value[None])[0]
            for time in range(module.n_times):
                torch.testing.assert_close(told[which[i * module.n_times + time]], want)
        assert len(told) <= 6  # a row for each type in each sample
        assert torch.isfinite(module.loss(batch).loss)
    finally:
        module.float()


def test_dependence_is_normalised_hsic():
    """Against the formula with explicit centring, loops and kernels."""
    rng = np.random.default_rng(0)
    z, classes, number = rng.normal(size=(30, 4)), rng.integers(0, 3, 30), rng.normal(size=30)
    missing = np.where(np.arange(30) < 5, np.nan, number)
    for values, n_classes in ((classes.astype(float), 3), (number, 0), (missing, 0)):
        is_known = ~np.isnan(values)
        y, v = z[is_known], values[is_known]
        n = len(y)
        squares = np.array([[((a - b) ** 2).sum() for b in y] for a in y])
        width = np.sort(squares.ravel())[(n * n - 1) // 2]  # torch takes the lower of two medians
        k = np.exp(-squares / width)
        same = np.equal.outer(v, v).astype(float) if n_classes else np.outer(v, v)
        h = np.eye(n) - 1 / n
        want = np.trace(h @ k @ h @ h @ same @ h) / np.linalg.norm(h @ k @ h) / np.linalg.norm(h @ same @ h)
        found = dependence(torch.from_numpy(z), torch.from_numpy(values), n_classes)
        np.testing.assert_allclose(float(found), want, rtol=1e-9)
    apart = torch.from_numpy(classes[:, None] * 10.0 + 0.01 * z)
    assert dependence(apart, torch.from_numpy(classes.astype(float)), 3) > 0.9
    assert dependence(apart, torch.zeros(30, dtype=torch.float64), 3) == 0  # one class


@pytest.mark.parametrize(
    ("values", "is_zero"),
    [
        ([0.0, 1, 1, 0, np.nan, 2], False),
        ([1.0, 1, 1, 1, np.nan, 1], True),
        ([0.0, 1, np.nan, np.nan, np.nan, np.nan], True),
        ([np.nan] * 6, True),
    ],
    ids=["some", "one class", "two samples", "none"],
)
@pytest.mark.parametrize("n_classes", [3, 0])
def test_samples_that_say_nothing_have_no_pull(values, is_zero, n_classes):
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 4))).requires_grad_()
    values = torch.tensor(values, dtype=torch.float64)
    found = dependence(z, values, n_classes)
    (pull,) = torch.autograd.grad(found, z)
    assert pull.isfinite().all()
    assert (pull[values.isnan()] == 0).all()
    assert (found == 0 and (pull == 0).all()) == is_zero
    known = z.detach()[~values.isnan()].requires_grad_()
    if not is_zero:  # that of the others alone
        alone = dependence(known, values[~values.isnan()], n_classes)
        torch.testing.assert_close(found, alone)
        torch.testing.assert_close(pull[~values.isnan()], torch.autograd.grad(alone, known)[0])


def test_vectors_that_are_all_equal_have_no_pull():
    z = torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
    found = dependence(z, torch.tensor([0.0, 1, 0, 1, 1], dtype=torch.float64), 2)
    assert found == 0
    assert (torch.autograd.grad(found, z)[0] == 0).all()


# ---- generation


def test_own_covariates_are_told_unless_others_are_asked(model):
    own = model.sample_cells(5, sample=["s00", "s01"], n_steps=4)
    asked = {"condition": ["control", "case"], "age": [20.0, 21.0]}
    np.testing.assert_allclose(
        model.sample_cells(5, sample=["s00", "s01"], covariates=asked, n_steps=4).X, own.X, atol=1e-6
    )
    table = pd.DataFrame(asked, index=["s00", "s01"]).loc[["s01", "s00"]]  # by name, not by place
    np.testing.assert_allclose(
        model.sample_cells(5, sample=["s00", "s01"], covariates=table, n_steps=4).X, own.X, atol=1e-6
    )
    for other in ({"condition": "case"}, {"condition": None}, {"cell_type": "B"}):
        changed = model.sample_cells(5, sample="s00", covariates=other, n_steps=4)
        assert np.abs(changed.X - own.X[:5]).max() > 1e-4


@pytest.mark.parametrize("decoder", ["diffusion", "flow"])
def test_guidance_is_the_formula_of_ho_and_salimans(decoder):
    module = build(keys=["condition"], decoder=decoder).module.eval().double()
    for p in module.denoiser.output.parameters():
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(1))
    z, seed = torch.zeros(1, 6, dtype=torch.float64), torch.tensor([5])
    told, untold = torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([[torch.nan]], dtype=torch.float64)
    *_, (_, found) = generate(
        module, z, seed, n_cells=3, sampler=None, n_steps=4, told=told, untold=untold, guidance=1.5
    )

    def answer(x, t, values):
        of_time = module.denoiser.of_time(torch.tensor([t], dtype=torch.float32))
        return module.denoiser(x, of_time, module.denoiser.of_sample(z + module.conditions(values)))

    def guided(x, t):
        return 2.5 * answer(x, t, told) - 1.5 * answer(x, t, untold)

    with torch.no_grad():
        x = cell_normal(seed, ptr_from_sizes([3]), 5, stream=23)
        if decoder == "diffusion":
            *_, (_, x) = ddim_steps(module.schedule, guided, x, n_steps=4, bounds=(module.low, module.high))
        else:
            for i in range(4):
                x = x + guided(x + guided(x, 250 * i) / 8, 250 * (i + 0.5)) / 4
    torch.testing.assert_close(found, module.original_units(x))


def test_guidance_needs_a_model_that_knows_both():
    bare = build(keys=None)
    sure = build(keys=["condition"], covariate_dropout=0.0)
    for model, message in ((bare, "was set up without covariates"), (sure, "was trained with covariate_dropout=0")):
        model.is_trained_ = True
        with pytest.raises(
            ValueError, match=f"guidance=2.0 compares what is told with what is not, but this model {message}"
        ):
            model.sample_cells(3, sample="s00", guidance=2.0)
    with pytest.raises(KeyError, match=r"\['condition'\] is no covariate of this model; the model was set up without"):
        bare.sample_cells(3, sample="s00", covariates={"condition": "case"})


def test_what_nobody_had_is_refused(model):
    def ask(**arguments):
        return model.sample_cells(2, **{"sample": ["s00", "s01"], "n_steps": 2, **arguments})

    with pytest.raises(
        ValueError,
        match=r"covariates\['condition'\] asks for \['other'\], which no sample of training has. Known: \['case', 'control'\]",
    ):
        ask(covariates={"condition": "other"})
    with pytest.raises(
        KeyError,
        match=r"\['dose'\] is no covariate of this model; the model was set up with \['condition', 'age', 'cell_type'\]",
    ):
        ask(covariates={"dose": 1})
    with pytest.raises(ValueError, match=r"covariates\['age'\] has 3 values for 2 samples"):
        ask(covariates={"age": [21, 22, 23]})
    with pytest.raises(KeyError, match=r"lacks 1 of 2 samples \(first: \['s01'\]\)"):
        ask(covariates=pd.DataFrame({"age": [21.0]}, index=["s00"]))
    with pytest.warns(UserWarning, match=r"asks for \['90.0', '90.0'\], beyond the training samples \(20 to 27\)"):
        ask(covariates={"age": 90})
    with pytest.raises(ValueError, match="guidance=-1 must be a finite number of 0 or more"):
        ask(guidance=-1)
    nothing = model.get_sample_representation(samples=["s00"])
    with pytest.raises(ValueError, match="has nothing to strengthen for 1 of 1 samples"):
        model.sample_cells(2, representation=nothing, guidance=1.0, n_steps=2)
    assert ask(representation=nothing, sample=None, covariates={"condition": "case"}, guidance=1.0).n_obs == 2


def test_a_saved_model_knows_its_covariates(model, tmp_path):
    model.sample_vectors()
    model.save(tmp_path / "model", overwrite=True)
    own = model.sample_cells(4, sample="s00", covariates={"condition": "case"}, n_steps=3)
    alone = sst.ScSet.load(tmp_path / "model", adata=False)
    cells = make_cohort()
    again = alone.sample_cells(4, sample="s00", adata=cells, covariates={"condition": "case"}, n_steps=3)
    np.testing.assert_allclose(again.X, own.X, atol=1e-6)
    bare = cells.copy()
    bare.obs = bare.obs.drop(columns=["condition", "age", "cell_type"])  # new samples of which nothing is known
    untold = alone.sample_cells(4, sample="s00", adata=bare, n_steps=3)
    said_nothing = alone.sample_cells(
        4, sample="s00", adata=cells, covariates={"condition": None, "age": None}, n_steps=3
    )
    np.testing.assert_allclose(untold.X, said_nothing.X, atol=1e-6)
    cells.obs["condition"] = "new"
    with pytest.raises(ValueError, match=r"has 1 categories the model was not trained on: .'new'."):
        alone.get_sample_representation(cells)
