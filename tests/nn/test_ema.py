"""The moving average against its closed form."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from scset_tools.nn import ema_decay_at, ema_update


class Counted(nn.Module):
    """A parameter, a float buffer, a counter and a buffer that is not saved."""

    def __init__(self, value: float, n: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), value))
        self.register_buffer("level", torch.full((2,), value))
        self.register_buffer("count", torch.tensor(n))
        self.register_buffer("hidden", torch.full((1,), value), persistent=False)


def test_closed_form_over_steps():
    """After k steps with students s_1 ... s_k: t_k = a^k t_0 + (1 - a) sum_j a^(k - j) s_j."""
    decay, start, values = 0.9, 2.0, [1.0, -3.0, 5.0, 0.5]
    teacher = Counted(start)
    pointer = teacher.weight.data_ptr()
    for n, value in enumerate(values, start=1):
        ema_update(teacher, Counted(value, n), decay)
    k = len(values)
    expected = decay**k * start + (1 - decay) * sum(decay ** (k - j) * v for j, v in enumerate(values, start=1))
    for tensor in (teacher.weight, teacher.level, teacher.hidden):
        torch.testing.assert_close(tensor.detach(), torch.full_like(tensor, expected))
    assert int(teacher.count) == k
    assert teacher.weight.data_ptr() == pointer


def test_student_is_untouched_and_no_graph_is_kept():
    student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    teacher = copy.deepcopy(student).requires_grad_(False)
    student(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    before = copy.deepcopy(student.state_dict())
    ema_update(teacher, student, 0.5)
    for name, tensor in student.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert teacher[0].weight.grad_fn is None
    assert not teacher[0].weight.requires_grad
    # Running mean starts at 0: half of the student's; the counter is copied.
    torch.testing.assert_close(teacher[1].running_mean, student[1].running_mean / 2)
    assert int(teacher[1].num_batches_tracked) == 1


def test_ends_of_decay():
    teacher, student = Counted(1.0), Counted(4.0)
    ema_update(teacher, student, 1)
    assert teacher.weight.tolist() == [1, 1, 1]
    ema_update(teacher, student, 0)
    assert teacher.weight.tolist() == [4, 4, 4]


def test_tied_weights_move_once():
    def tied(value: float) -> nn.Module:
        net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        net[1].weight = net[0].weight
        nn.init.constant_(net[0].weight, value)
        return net

    teacher = tied(0.0)
    ema_update(teacher, tied(1.0), 0.9)
    torch.testing.assert_close(teacher[1].weight.detach(), torch.full((2, 2), 0.1))


def test_teacher_may_keep_higher_precision():
    teacher = nn.Linear(2, 1).double()
    student = nn.Linear(2, 1)
    expected = 0.75 * teacher.weight.detach().clone() + 0.25 * student.weight.detach().double()
    ema_update(teacher, student, 0.75)
    torch.testing.assert_close(teacher.weight.detach(), expected)


def test_decay_ramp():
    assert [ema_decay_at(step, 0.999) for step in (0, 8, 90)] == [0.1, 0.5, 0.91]
    assert ema_decay_at(8_989, 0.999) < 0.999
    assert ema_decay_at(8_990, 0.999) == 0.999
    assert ema_decay_at(10**6, 0.999) == 0.999
    assert ema_decay_at(10, 0.0) == 0.0


def test_errors():
    with pytest.raises(ValueError, match=r"1 tensors are in the student alone \['bias'\], 0 in the teacher"):
        ema_update(nn.Linear(2, 2, bias=False), nn.Linear(2, 2), 0.9)
    with pytest.raises(ValueError, match=r"the first is 'weight': \(2, 3\) and \(2, 2\)"):
        ema_update(nn.Linear(3, 2), nn.Linear(2, 2), 0.9)
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\], got 1.5"):
        ema_update(nn.Linear(2, 2), nn.Linear(2, 2), 1.5)
