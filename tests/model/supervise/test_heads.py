"""Heads: losses against closed forms, decisions, weights of classes, scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch.nn import functional as F

from scset_tools.model.supervise._heads import ClassHead, ContinuousHead, OrdinalHead, TimeToEventHead, make_head

NAMES = ("a", "b", "c", "d", "e")


def ordinal(n_classes: int, scores: list[float]) -> tuple[OrdinalHead, torch.Tensor]:
    head = OrdinalHead(1, NAMES[:n_classes])
    head.linear.weight.data.fill_(1.0)
    head.linear.bias.data.zero_()
    return head, torch.tensor(scores)[:, None].requires_grad_()


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_all_levels_are_as_probable_at_first(n_classes: int) -> None:
    head, _ = ordinal(n_classes, [0.0])
    assert torch.allclose(head.predictions(torch.zeros(1, 1)), torch.full((1, n_classes), 1 / n_classes), atol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_ordinal_loss_is_that_of_the_formula(n_classes: int) -> None:
    head, z = ordinal(n_classes, [-3.0, -0.2, 0.0, 1.5, 4.0])
    y = torch.tensor([0, 1, 1, n_classes - 1, 0])
    loss, accuracy = head.loss(head(z), y).detach(), head.quality(head(z), y).detach()
    theta = head.thresholds.detach().double().numpy()
    above = np.column_stack([np.ones(5), expit(z.detach().double().numpy() - theta), np.zeros(5)])
    p = -np.diff(above, axis=1)
    assert float(loss) == pytest.approx(-np.log(p[np.arange(5), y.numpy()]).mean(), rel=1e-5)
    assert float(accuracy) == pytest.approx(np.mean((z.detach().numpy() > theta).sum(1) == y.numpy()))


@pytest.mark.parametrize(("level", "score"), [(0, 60.0), (1, 60.0), (2, -60.0), (1, -60.0)])
def test_ordinal_loss_does_not_saturate(level: int, score: float) -> None:
    """Far on the wrong side -log p grows as the distance to the threshold, and the gradient is 1."""
    head, z = ordinal(3, [score])
    loss = head.loss(head(z), torch.tensor([level]))
    loss.backward()
    low, high = head.thresholds.detach().double()
    theta = high if (level, score > 0) in ((1, True), (2, False)) else low
    inside = -torch.log(-torch.expm1(low - high)) if level == 1 else 0.0
    assert float(loss.detach()) == pytest.approx(float(F.softplus((score - theta).abs()) + inside), rel=1e-5)
    assert abs(z.grad.item()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("head", [ClassHead(3, NAMES[:2]), OrdinalHead(3, NAMES[:3])], ids=["class", "ordinal"])
def test_weights_of_classes_act_in_batches_of_one_class(head: ClassHead | OrdinalHead) -> None:
    codes = np.array([0] * 6 + [1] * 2)
    z = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))

    def loss(rows: slice) -> float:
        return float(head.loss(head(z[rows]), torch.from_numpy(codes[rows])).detach())

    head.prepare(codes, balance=False)
    plain = [loss(slice(i, i + 1)) for i in range(8)]
    head.prepare(codes, balance=True)
    weight = head.class_weight.numpy()[codes]
    assert weight.mean() == pytest.approx(1.0)
    assert weight[0] * 6 == pytest.approx(weight[7] * 2)
    for i in range(8):
        assert loss(slice(i, i + 1)) == pytest.approx(weight[i] * plain[i], rel=1e-5)
    assert loss(slice(None)) == pytest.approx(np.mean(weight * plain), rel=1e-5)


def test_numbers_are_learned_in_units_of_their_spread_and_given_in_their_own() -> None:
    head = ContinuousHead(2)
    y = np.array([10.0, 20.0, 60.0])
    head.prepare(y, balance=False)
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    got = head.predictions(z).detach().numpy()[:, 0]
    raw = head(z)
    assert float(head.loss(raw, torch.from_numpy(y)).detach()) == pytest.approx(
        np.mean((got - y) ** 2) / y.var(), rel=1e-5
    )
    assert float(head.quality(raw, torch.from_numpy(y)).detach()) == pytest.approx(np.abs(got - y).mean(), rel=1e-5)
    np.testing.assert_array_equal(head.scores(z).detach(), head.predictions(z).detach())


def test_survival_falls_from_one_and_is_lower_at_a_higher_hazard() -> None:
    head = TimeToEventHead(1)
    head.linear.weight.data.fill_(1.0)
    z = torch.tensor([[-1.0], [0.0], [1.0], [2.0]])
    y = torch.tensor([[4.0, 1], [3.0, 0], [2.0, 1], [1.0, 1]])
    head.set_baseline(z, y)
    survival = head.survival(z).detach().numpy()
    assert head.times.tolist() == [1.0, 2.0, 4.0]
    assert (np.diff(survival, axis=1) < 0).all()
    assert (np.diff(survival, axis=0) < 0).all()
    hazard = 1 / np.exp([-1, 0, 1, 2]).sum()
    np.testing.assert_allclose(survival[:, 0], np.exp(-hazard * np.exp([-1, 0, 1, 2])), rtol=1e-6)


@pytest.mark.parametrize("kind", ["class", "ordinal", "continuous", "time_to_event"])
@pytest.mark.parametrize("n_layers", [0, 2])
def test_every_kind_standardises_scores_and_knows_what_is_missing(kind: str, n_layers: int) -> None:
    classes = NAMES[:3] if kind in ("class", "ordinal") else ()
    head = make_head(kind, 4, classes=classes, n_layers=n_layers, n_hidden=8)
    assert (head.kind, head.classes, head.is_linear) == (kind, tuple(classes), n_layers == 0)
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) * 3 + 5
    z[:, 2] = 7.25  # no spread
    head.standardize(z)
    inside = (z - head.center) / head.spread
    np.testing.assert_allclose(inside.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(inside.std(0, correction=0), [1, 1, 0, 1], atol=1e-5)
    n_scores = 3 if kind == "class" else 1
    assert head.scores(z).shape == (6, n_scores)
    missing = {"class": [-1, 1], "ordinal": [-1, 1], "continuous": [np.nan, 1.0]}.get(kind, [[np.nan, 1.0], [2.0, 0.0]])
    assert head.is_known(torch.tensor(missing)).tolist() == [False, True]
