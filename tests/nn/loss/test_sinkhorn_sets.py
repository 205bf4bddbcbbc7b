"""Sets of any size solved together, as on a GPU: the same plans as each set by itself."""

from __future__ import annotations

import pytest
import torch

from scset_tools.nn import ptr_from_sizes
from scset_tools.nn.loss import SinkhornLoss, _sinkhorn
from scset_tools.nn.loss._sinkhorn_sets import Now, groups_of

X_SIZES = [30, 75, 120, 30, 1, 0, 110, 33]
Y_SIZES = [30, 70, 120, 33, 2, 5, 90, 33]
ONE_BY_ONE = _sinkhorn._Way(2**18, is_padded=False, is_exact=False, look=Now)


class Late(Now):
    """What a GPU answers: how it was when it was last asked."""

    def asked(self, is_done):
        answer = self.answer()
        self.tell(is_done)
        return answer


def clouds(sizes, seed):
    rng = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(5, 6, generator=torch.Generator().manual_seed(9))
    kinds = torch.randint(5, (sum(sizes),), generator=rng)
    shift = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))[
        :, None
    ]  # sets far apart, and of several widths
    return (centres[kinds] + torch.randn(sum(sizes), 6, generator=rng)) * (1 + shift) + 10 * shift


def solve(monkeypatch, way, x, y, x_sizes=X_SIZES, y_sizes=Y_SIZES, **arguments):
    monkeypatch.setattr(_sinkhorn, "_way", lambda _: way)
    loss = SinkhornLoss(solver="scaling", **arguments)
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    value = loss(x, y, x_ptr=ptr_from_sizes(x_sizes), y_ptr=ptr_from_sizes(y_sizes))
    value.sum().backward()
    return value.detach(), x.grad, y.grad, loss.marginal_error


def assert_same(found, expected, tolerance=1e-5):
    for a, b in zip(found[:3], expected[:3], strict=True):
        assert float((a - b).abs().max()) <= tolerance * float(b.abs().max())


TO_THE_END = {"tolerance": 1e-6, "n_iterations": 2000}
"""By default the solver stops well before, and the last digits of two orders of summation decide in which round."""


@pytest.mark.parametrize("limit", [2**27, 3 * 120 * 120], ids=["all", "some"])
@pytest.mark.parametrize("arguments", [TO_THE_END, {"debiased": True, "epsilon": 0.01}], ids=["default", "debiased"])
def test_padded_sets_have_the_plans_of_each_by_itself(monkeypatch, arguments, limit):
    x, y = clouds(X_SIZES, 0), clouds(Y_SIZES, 1)
    expected = solve(monkeypatch, ONE_BY_ONE, x, y, **arguments)
    way = _sinkhorn._Way(limit, is_padded=True, is_exact=False, look=Late)
    found = solve(monkeypatch, way, x, y, **arguments)
    assert_same(found, expected, 2e-5)  # two orders of summation at a temperature of 1e-4
    assert float(found[3].max()) < 0.02


@pytest.mark.parametrize("limit", [2**27, 3 * 120 * 120], ids=["all", "some"])
def test_padded_sets_arrive_by_default(monkeypatch, limit):
    x, y = clouds(X_SIZES, 0), clouds(Y_SIZES, 1)
    expected = solve(monkeypatch, ONE_BY_ONE, x, y, **TO_THE_END)
    found = solve(monkeypatch, _sinkhorn._Way(limit, is_padded=True, is_exact=False, look=Late), x, y)
    assert float(found[3].max()) < 0.02
    torch.testing.assert_close(found[0], expected[0], rtol=0.05, atol=1e-6)


def test_looking_later_changes_no_digit(monkeypatch):
    x, y = clouds(X_SIZES, 0), clouds(Y_SIZES, 1)
    y[:30] *= 100  # one set with further to go, for which the others wait
    ways = [_sinkhorn._Way(2**27, is_padded=True, is_exact=False, look=look) for look in (Now, Late)]
    (a, a_x, a_y, _), (b, b_x, b_y, _) = (solve(monkeypatch, way, x, y) for way in ways)
    assert torch.equal(a, b)
    assert torch.equal(a_x, b_x)
    assert torch.equal(a_y, b_y)


def test_batch_mates_change_no_plan(monkeypatch):
    """A set that has arrived waits, however long the others take and however many they are."""
    x, y = clouds([40, 25], 0), clouds([40, 30], 1)
    way = _sinkhorn._Way(2**27, is_padded=True, is_exact=False, look=Late)
    alone = solve(monkeypatch, way, x[:40], y[:40], [40], [40])
    y[40:] *= 1000
    together = solve(monkeypatch, way, x, y, [40, 25], [40, 30])
    assert_same([t[:n] for t, n in zip(together, (1, 40, 40), strict=False)], alone[:3])


def test_groups():
    bounds = [0, 100, 100, 110, 210, 1_210, 4_210]
    everything = [i for i in range(6) if i != 1]
    equal = list(groups_of(bounds, bounds, limit=2**27, is_padded=False))
    assert equal == [[0, 3], [2], [4], [5]]
    padded = list(groups_of(bounds, bounds, limit=2**27, is_padded=True))
    assert padded[0][0] == 5  # the largest first
    assert sorted(i for group in padded for i in group) == everything
    assert next(iter(groups_of(bounds, bounds, limit=3_000**2, is_padded=True))) == [5]
    few = [0, 100, 150, 153]
    assert list(groups_of(few, few, limit=2**27, is_padded=True)) == [[0, 1, 2]]


def test_padding_is_bounded():
    n = [5_000, 4_900, 500, 400, 10]
    bounds = [0, *torch.tensor(n).cumsum(0).tolist()]
    for group in groups_of(bounds, bounds, limit=2**40, is_padded=True):
        entries = len(group) * max(n[i] for i in group) ** 2
        assert entries <= max(2 * sum(n[i] ** 2 for i in group), 2**22)
