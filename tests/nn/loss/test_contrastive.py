"""The contrastive loss against the sum of the paper, written out."""

from __future__ import annotations

import math

import pytest
import torch

from scset_tools.nn.loss import ContrastiveLoss


def slow_loss(z, label, temperature):
    z = [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in z]
    total, n_anchors = 0.0, 0
    for i, zi in enumerate(z):
        positives = [p for p in range(len(z)) if p != i and label[p] == label[i]]
        if not positives:
            continue
        n_anchors += 1
        dot = [sum(a * b for a, b in zip(zi, zj, strict=True)) / temperature for zj in z]
        below = sum(math.exp(dot[a]) for a in range(len(z)) if a != i)
        total += -sum(math.log(math.exp(dot[p]) / below) for p in positives) / len(positives)
    return total / max(n_anchors, 1)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equal_to_the_formula(temperature):
    z = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 0, 1, 2, 1, 1, 3, 0, 3])
    got = ContrastiveLoss(temperature)(z, label)
    assert float(got) == pytest.approx(slow_loss(z.tolist(), label.tolist(), temperature), rel=1e-5)


def test_unknown_labels_are_left_out():
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, -1, 0, 1, -1, 1])
    kept = label >= 0
    loss = ContrastiveLoss()
    assert float(loss(z, label)) == pytest.approx(float(loss(z[kept], label[kept])))


@pytest.mark.parametrize("label", [[0, 1, 2], [-1, -1, -1], [0]])
def test_nothing_to_pull_together_is_zero_with_a_gradient(label):
    z = torch.randn(len(label), 4, requires_grad=True)
    value = ContrastiveLoss()(z, torch.tensor(label))
    value.backward()
    assert float(value.detach()) == 0
    assert torch.isfinite(z.grad).all()


def test_gradient_pulls_the_same_label_together():
    z = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    label = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    loss = ContrastiveLoss(0.5)
    optimizer = torch.optim.SGD([z], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        loss(z, label).backward()
        optimizer.step()
    unit = torch.nn.functional.normalize(z.detach(), dim=1)
    assert float((unit[:4] @ unit[:4].T).min()) > 0.9
    assert float((unit[:4] @ unit[4:].T).max()) < 0


def test_temperature_is_positive():
    with pytest.raises(ValueError, match="temperature must be larger than 0"):
        ContrastiveLoss(0.0)


@pytest.mark.parametrize("tiny", [0.0, 1e-12, 1e-30])
def test_a_vector_without_direction_has_an_ordinary_gradient(tiny):
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    z[2] = tiny
    z.requires_grad_()
    loss = ContrastiveLoss()(z, torch.tensor([0, 0, 0, 1, 1, 1]))
    loss.backward()
    assert loss.isfinite()
    assert z.grad.abs().max() < 1e2
    assert torch.equal(z.grad[2], torch.zeros(4))


def test_all_vectors_zero():
    z = torch.zeros(4, 3, requires_grad=True)
    ContrastiveLoss()(z, torch.tensor([0, 0, 1, 1])).backward()
    assert torch.equal(z.grad, torch.zeros(4, 3))
