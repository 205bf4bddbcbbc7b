"""Cells as sets of markers, and a mixture seen through some of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from scset_tools.nn import MarginalTokenPool, MarkerEmbedding, SetEncoder, TokenPool, drop_markers, ptr_from_sizes

NAN = torch.nan


def embedding(m=7, d=5) -> MarkerEmbedding:
    torch.manual_seed(0)
    return MarkerEmbedding(m, d)


def test_the_formula_marker_by_marker():
    layer = embedding()
    x = torch.randn(4, 7)
    x[:2, 3] = NAN
    x[2, [0, 6]] = NAN
    got = layer(x)
    for i in range(len(x)):
        measured = [j for j in range(7) if not torch.isnan(x[i, j])]
        total = torch.zeros(5)
        for j in measured:
            phi = [torch.tensor(1.0), x[i, j], *torch.tanh(layer.slope * x[i, j] + layer.offset)]
            for r, value in enumerate(phi):
                total += value * (layer.names[j] @ layer.values[r])
        wanted = layer.bias + total * 7**0.5 / len(measured)
        torch.testing.assert_close(got[i], wanted, rtol=1e-5, atol=1e-5)


def test_an_absent_marker_is_not_zero_and_not_there():
    layer = embedding()
    x = torch.randn(3, 7)
    absent, zero = x.clone(), x.clone()
    absent[:, 2], zero[:, 2] = NAN, 0
    assert not torch.allclose(layer(absent), layer(zero), atol=1e-3)
    smaller = MarkerEmbedding(6, 5)  # the same markers without that one
    keep = [0, 1, 3, 4, 5, 6]
    smaller.load_state_dict({**layer.state_dict(), "names": layer.names[keep]})
    unscaled = (layer(absent) - layer.bias) * (6 / 7) ** 0.5
    torch.testing.assert_close(smaller(x[:, keep]) - layer.bias, unscaled)


def test_no_gradient_for_what_is_missing():
    layer = embedding()
    x = torch.randn(3, 7)
    x[:, 2] = NAN
    x.requires_grad_()
    layer(x).sum().backward()
    assert (x.grad[:, 2] == 0).all()
    assert torch.isfinite(x.grad).all()
    assert (layer.names.grad[2] == 0).all()
    assert torch.isfinite(layer.values.grad).all()


def test_it_begins_at_the_scale_of_a_linear_layer():
    torch.manual_seed(1)
    x = torch.randn(2000, 30)
    straight = torch.nn.Linear(30, 64)(x).detach()
    ours = MarkerEmbedding(30, 64)(x)
    assert 0.7 < float(ours.detach().std() / straight.std()) < 1.5
    x[:, :15] = NAN
    assert 0.7 < float(MarkerEmbedding(30, 64)(x).detach().std() / straight.std()) < 2.2


def test_an_encoder_takes_it_and_padding_changes_nothing():
    torch.manual_seed(0)
    encoder = SetEncoder(7, 8, 4, n_layers=2, n_inducing=3, n_heads=2, lift=MarkerEmbedding(7, 8)).eval()
    x = torch.randn(6, 7)
    x[:4, 1] = NAN
    ragged = encoder(x, ptr_from_sizes([4, 2]))
    torch.testing.assert_close(ragged[0], encoder(x[:4])[0])
    assert torch.isfinite(ragged).all()


def test_dropped_markers_are_those_of_whole_samples():
    x = torch.randn(400, 20)
    x[:40, :5] = NAN
    ptr, seed = ptr_from_sizes([40] * 10), torch.arange(10)
    out = drop_markers(x, ptr, seed, rate=0.8, stream=3)
    missing = out.isnan().view(10, 40, 20)
    assert (missing == missing[:, :1]).all()
    assert missing[0, 0, :5].all()
    share = missing[1:, 0].float().mean(1)
    assert share.max() <= 0.9
    assert share.std() > 0.05
    assert torch.equal(out[~out.isnan()], x[~out.isnan()])
    alone = drop_markers(x[40:80], ptr_from_sizes([40]), seed[1:2], rate=0.8, stream=3)
    assert torch.equal(alone.isnan(), out[40:80].isnan())  # of itself alone
    everything = drop_markers(x, ptr, seed, rate=1e9, stream=3)
    assert (~everything.isnan()).view(10, 40, 20)[:, 0].sum(1).eq(1).all()
    assert torch.equal(drop_markers(x, ptr, seed, rate=0.0, stream=3).isnan(), x.isnan())


def kinds(m=5, k=3):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(m, m))
    return rng.normal(size=(k, m)) * 2, root @ root.T + np.eye(m), np.log(np.array([0.5, 0.3, 0.2]))


def pools(n_latent=6):
    means, covariance, log_weight = (torch.from_numpy(v).float() for v in kinds())
    whole, part = TokenPool(5, 3, n_latent), MarginalTokenPool(5, 3, n_latent)
    whole.set_kinds(means, torch.linalg.cholesky(torch.linalg.inv(covariance)), log_weight)
    part.set_kinds(means, covariance, log_weight)
    part.location.copy_(whole.location)
    part.project.copy_(whole.project)
    return whole, part


def test_with_all_markers_it_is_the_pool_of_the_whole():
    whole, part = pools()
    x, ptr = torch.randn(9, 5), ptr_from_sizes([4, 0, 5])
    torch.testing.assert_close(part.assign(x), whole.assign(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(part.sums(x, ptr), whole.sums(x, ptr), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(part(x, ptr), whole(x, ptr), rtol=1e-4, atol=1e-4)


def test_kinds_are_told_by_the_marginal_of_the_mixture():
    means, covariance, log_weight = kinds()
    _, part = pools()
    x = torch.randn(6, 5)
    for panel in ([0, 2, 3], [1], [0, 1, 2, 3, 4]):
        seen = torch.full_like(x, NAN)
        seen[:, panel] = x[:, panel]
        density = np.stack(
            [
                np.exp(log_weight[k]) * multivariate_normal(means[k][panel], covariance[np.ix_(panel, panel)]).pdf(x[:, panel].numpy())
                for k in range(3)
            ],
            axis=1,
        ).reshape(6, 3)  # fmt: skip
        np.testing.assert_allclose(
            part.assign(seen).numpy(), density / density.sum(1, keepdims=True), rtol=1e-3, atol=1e-5
        )
    mixed = torch.stack([seen[0], x[1], torch.tensor([NAN, 1.0, NAN, NAN, NAN])])
    together = part.assign(mixed)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], part.assign(mixed[i : i + 1]))


def test_shifts_of_missing_markers_are_conditional_expectations():
    means, covariance, _ = kinds()
    _, part = pools()
    x = torch.randn(30, 5)
    panel, missing = [0, 2], [1, 3, 4]
    x[:, missing] = NAN
    sums = part.sums(x, ptr_from_sizes([30]))[0]
    a = part.assign(x).double().numpy()
    for k in range(3):
        shift = a[:, k] @ (x[:, panel].double().numpy() - means[k][panel])
        expected = covariance[np.ix_(missing, panel)] @ np.linalg.solve(covariance[np.ix_(panel, panel)], shift)
        np.testing.assert_allclose(sums[k, 0], a[:, k].sum(), rtol=1e-4)
        np.testing.assert_allclose(sums[k, 1:].numpy()[panel], shift, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(sums[k, 1:].numpy()[missing], expected, rtol=1e-3, atol=1e-3)


def test_pieces_of_a_sample_add_up():
    _, part = pools()
    x = torch.randn(12, 5)
    x[:, 3] = NAN
    whole = part.sums(x, ptr_from_sizes([12]))
    torch.testing.assert_close(whole, part.sums(x[:5], ptr_from_sizes([5])) + part.sums(x[5:], ptr_from_sizes([7])))


@pytest.mark.parametrize("is_new", [True, False])
def test_gradients_are_finite(is_new):
    part = MarginalTokenPool(5, 3, 4) if is_new else pools()[1]
    x = torch.randn(8, 5)
    x[:3, 1] = NAN
    x.requires_grad_()
    part(x, ptr_from_sizes([3, 5])).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad[:3, 1] == 0).all()
