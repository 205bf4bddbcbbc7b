"""The loss against a loop with scipy's softmax and relative entropy; the centre against its closed form."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax
from torch import distributed

from scset_tools.nn.loss import DistillationLoss


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def slow_loss(student: np.ndarray, teacher: np.ndarray, sample_of_view: list[int], center: np.ndarray) -> float:
    of_sample = []
    for i in range(len(teacher)):
        p = softmax((teacher[i] - center) / 0.07)
        values = [rel_entr(p, softmax(student[v] / 0.1)).sum() for v, s in enumerate(sample_of_view) if s == i]
        if values:
            of_sample.append(np.mean(values))
    return float(np.mean(of_sample))


@settings(max_examples=60, deadline=None)
@given(sample_of_view=st.lists(st.integers(0, 3), min_size=1, max_size=8), seed=st.integers(0, 10**6))
def test_equal_to_scipy(sample_of_view: list[int], seed: int):
    student, teacher = draw(len(sample_of_view), 6, seed=seed), draw(4, 6, seed=seed + 1)
    center = draw(6, seed=seed + 2)
    loss = DistillationLoss(6).double()
    loss.center.copy_(center)
    expected = slow_loss(student.numpy(), teacher.numpy(), sample_of_view, center.numpy())
    assert float(loss(student, teacher, torch.tensor(sample_of_view))) == pytest.approx(expected, rel=1e-9)


def test_one_view_per_sample_by_default():
    student, teacher = draw(3, 5), draw(3, 5, seed=1)
    loss = DistillationLoss(5)
    expected = slow_loss(student.numpy(), teacher.numpy(), [0, 1, 2], np.zeros(5))
    assert float(loss(student, teacher)) == pytest.approx(expected, rel=1e-6)


def test_zero_when_the_student_agrees_and_positive_otherwise():
    teacher = draw(3, 5)
    loss = DistillationLoss(5)
    assert float(loss(teacher * 0.1 / 0.07, teacher)) == pytest.approx(0, abs=1e-6)
    assert float(loss(draw(3, 5, seed=1), teacher)) > 0.1


def test_gradient_reaches_the_student_alone():
    """d/ds of KL(p || softmax(s / T)) is (softmax(s / T) - p) / T."""
    student, teacher = draw(2, 5).requires_grad_(), draw(2, 5, seed=1).requires_grad_()
    loss = DistillationLoss(5).double()
    loss(student, teacher).backward()
    assert teacher.grad is None
    q, p = softmax(student.detach().numpy() / 0.1, axis=1), softmax(teacher.detach().numpy() / 0.07, axis=1)
    np.testing.assert_allclose(student.grad.numpy(), (q - p) / 0.1 / 2, atol=1e-12)


def test_extreme_and_half_precision_outputs_stay_finite():
    student = (draw(2, 5) * 100).bfloat16().requires_grad_()
    loss = DistillationLoss(5)
    value = loss(student, (draw(2, 5, seed=1) * 100).bfloat16())
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


def test_center_closed_form():
    """c_k = (1 - a) sum_j a^(k - j) mean_j from c_0 = 0."""
    loss = DistillationLoss(4)
    batches = [draw(n, 4, seed=n).float().requires_grad_() for n in (3, 1, 5)]
    for batch in batches:
        loss.update_center(batch)
    expected = sum(0.1 * 0.9 ** (2 - j) * batch.detach().mean(0) for j, batch in enumerate(batches))
    torch.testing.assert_close(loss.center, expected)
    assert not loss.center.requires_grad
    loss.update_center(torch.zeros(0, 4))
    torch.testing.assert_close(loss.center, expected)


def test_center_is_saved_and_forward_leaves_it():
    loss = DistillationLoss(4)
    loss.update_center(draw(3, 4))
    before = loss.center.clone()
    loss(draw(3, 4), draw(3, 4))
    assert torch.equal(loss.center, before)
    other = DistillationLoss(4)
    other.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert torch.equal(other.center, before)


def test_update_between_forward_and_backward_is_allowed():
    student = draw(2, 4).requires_grad_()
    loss = DistillationLoss(4)
    value = loss(student, draw(2, 4, seed=1))
    loss.update_center(draw(2, 4, seed=1))
    value.backward()
    assert torch.isfinite(student.grad).all()


def test_center_averages_samples_over_ranks(monkeypatch: pytest.MonkeyPatch):
    """Another rank holds three samples, this one holds one: every sample counts the same."""
    here, there = draw(1, 4).float(), draw(3, 4, seed=1).float()

    def all_reduce(total: torch.Tensor) -> None:
        total += torch.cat([there.sum(0), torch.tensor([3.0])])

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    loss = DistillationLoss(4)
    loss.update_center(here)
    torch.testing.assert_close(loss.center, 0.1 * torch.cat([here, there]).mean(0))


def test_no_views():
    value = DistillationLoss(4)(torch.zeros(0, 4), torch.zeros(2, 4), torch.zeros(0, dtype=torch.int64))
    assert float(value) == 0


def test_errors():
    with pytest.raises(ValueError, match="temperatures must be positive, got student_temperature=0"):
        DistillationLoss(4, student_temperature=0)
    with pytest.raises(ValueError, match="center_momentum must lie in"):
        DistillationLoss(4, center_momentum=1.1)
    loss = DistillationLoss(4)
    with pytest.raises(ValueError, match=r"teacher_out must have shape \(rows, 4\), got \(2, 3\)"):
        loss(torch.zeros(2, 4), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="student_out has 4 views, but 2 are named"):
        loss(torch.zeros(4, 4), torch.zeros(2, 4))
