from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from scset_tools.nn import draw_without_replacement, n_hidden_genes


def test_numbers_of_hidden_genes():
    n = torch.tensor([0, 1, 2, 3, 10, 100])
    assert n_hidden_genes(n, 0.3).tolist() == [0, 0, 1, 1, 3, 30]
    assert n_hidden_genes(n, 0.29)[-1] == 29  # 0.29 * 100 is 28.999...
    assert n_hidden_genes(n, 1.0).tolist() == [0, 0, 1, 2, 9, 99]
    assert n_hidden_genes(n, 0.0).tolist() == [0] * 6
    with pytest.raises(ValueError, match="rate must lie in"):
        n_hidden_genes(n, 1.5)


def test_exact_numbers_without_repeats_among_real_positions():
    rng = torch.Generator().manual_seed(0)
    weight = torch.rand(50, 12, generator=rng)
    is_real = torch.rand(50, 12, generator=rng) < 0.7
    is_real[:, 0] = True
    n_draws = (is_real.sum(1) * torch.rand(50, generator=rng)).long()
    index, is_drawn = draw_without_replacement(
        weight, n_draws, torch.rand(50, 12, generator=rng).double(), is_real=is_real
    )
    for i in range(50):
        drawn = index[i][is_drawn[i]].tolist()
        assert len(drawn) == len(set(drawn)) == n_draws[i]
        assert all(is_real[i, j] for j in drawn)


def test_first_draws_follow_the_weights():
    """Chi-square on a fixed vector of weights; the first position drawn has probability w / sum(w)."""
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    u = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0)).double()
    index, _ = draw_without_replacement(weight.expand(len(u), -1), torch.full((len(u),), 2), u)
    observed = np.bincount(index[:, 0], minlength=4)
    assert stats.chisquare(observed, len(u) * weight.numpy() / 10).pvalue > 0.01
    assert stats.chisquare(observed, np.full(4, len(u) / 4)).pvalue < 1e-10  # the test can fail


def test_pairs_follow_successive_draws():
    """P(i then j) = w_i / s * w_j / (s - w_i): the multinomial draw without replacement."""
    w = np.array([1.0, 2.0, 3.0, 4.0])
    n = 20_000
    u = torch.rand(n, 4, generator=torch.Generator().manual_seed(1)).double()
    index, _ = draw_without_replacement(torch.tensor(w).expand(n, -1), torch.full((n,), 2), u)
    observed = np.zeros((4, 4))
    np.add.at(observed, tuple(index.T.numpy()), 1)
    expected = w[:, None] / w.sum() * w[None, :] / (w.sum() - w[:, None])
    off = ~np.eye(4, dtype=bool)
    assert np.diag(observed).sum() == 0
    assert stats.chisquare(observed[off], n * expected[off]).pvalue > 0.01


def test_weight_zero_comes_last():
    weight = torch.tensor([[0.0, 1e-30, 0.0, 5.0]])
    index, is_drawn = draw_without_replacement(weight, torch.tensor([3]), torch.full((1, 4), 0.5).double())
    assert index[0, :2].tolist() == [3, 1]
    assert index[0, 2] in (0, 2)
    assert is_drawn.all()


def test_no_gradient_flows_through_the_draw():
    weight = torch.rand(3, 5, requires_grad=True)
    index, is_drawn = draw_without_replacement(weight, torch.tensor([2, 1, 0]), torch.rand(3, 5).double())
    assert not index.requires_grad
    assert not is_drawn.requires_grad


def test_too_few_positions():
    with pytest.raises(ValueError, match="cell 1 has 2 positions, cannot draw 3"):
        draw_without_replacement(
            torch.ones(2, 4),
            torch.tensor([3, 3]),
            torch.rand(2, 4).double(),
            is_real=torch.tensor([[True] * 4, [True, False, True, False]]),
        )


def test_nothing_to_draw():
    index, is_drawn = draw_without_replacement(torch.ones(2, 0), torch.zeros(2, dtype=torch.long), torch.ones(2, 0))
    assert index.shape == is_drawn.shape == (2, 0)
