"""Masks, latents, decoder and pooling against slow references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from scset_tools.model.selfguided._decoder import GeneDecoder
from scset_tools.model.selfguided._encoder import GeneEncoder, pool_tokens
from scset_tools.model.selfguided._latents import LatentCrossAttention, concentration
from scset_tools.model.selfguided._masking import hide_genes, used_latents
from scset_tools.model.selfguided._pooling import attention_pool, mean_pool
from scset_tools.model.selfguided._tokens import front, pad

N_GENES = 40


def cells(sizes, seed=0):
    rng = torch.Generator().manual_seed(seed)
    genes = [torch.randperm(N_GENES, generator=rng)[:n].sort().values for n in sizes]
    gene = torch.cat(genes)
    ptr = torch.tensor([0, *np.cumsum(sizes)])
    return pad(gene, torch.rand(len(gene), generator=rng) + 0.1, ptr, padding=N_GENES)


MEASURED = torch.ones(N_GENES, dtype=torch.bool)


def hide(tokens, seed, **kwargs):
    arguments = {"importance": None, "rate": 0.3, "zero_rate": 0.1, "is_measured": MEASURED, **kwargs}
    return hide_genes(tokens, seed, **arguments)


# ---- masks


def test_exact_numbers_of_expressed_and_of_zero_genes():
    sizes = [1, 2, 10, 33, 40]
    tokens, seed = cells(sizes), torch.arange(5)
    hidden = hide(tokens, seed)
    assert hidden.is_expressed.sum(1).tolist() == [0, 1, 3, 9, 12]
    assert (hidden.is_real & ~hidden.is_expressed).sum(1).tolist() == [3, 3, 3, 0, 0]  # floor(0.1 * zeros)
    assert hidden.is_visible.sum(1).tolist() == [1, 1, 7, 24, 28]
    for i in range(5):
        expressed = dict(zip(tokens.gene[i].tolist(), tokens.value[i].tolist(), strict=True))
        drawn = hidden.gene[i][hidden.is_real[i]].tolist()
        assert len(set(drawn)) == len(drawn)
        visible = set(tokens.gene[i][hidden.is_visible[i]].tolist())
        assert visible.isdisjoint(drawn)
        for gene, value, is_expressed in zip(
            drawn,
            hidden.value[i][hidden.is_real[i]].tolist(),
            hidden.is_expressed[i][hidden.is_real[i]].tolist(),
            strict=True,
        ):
            assert is_expressed == (gene in expressed)
            assert value == (expressed[gene] if is_expressed else 0)


def test_masks_are_of_the_cell_alone():
    sizes, seed = [5, 12, 9], torch.tensor([11, 22, 33])
    tokens = cells(sizes)
    together = hide(tokens, seed)
    for i in range(3):
        alone = hide(
            pad(tokens.gene[i, : sizes[i]], tokens.value[i, : sizes[i]], torch.tensor([0, sizes[i]]), padding=N_GENES),
            seed[i : i + 1],
        )
        a = set(alone.gene[0][alone.is_real[0]].tolist())
        assert a == set(together.gene[i][together.is_real[i]].tolist())
    assert not torch.equal(hide(tokens, seed + 1).is_visible, together.is_visible)


def test_hidden_expressed_genes_follow_the_importance():
    n = 6_000
    tokens = pad(torch.arange(4).repeat(n), torch.ones(4 * n), torch.arange(n + 1) * 4, padding=N_GENES)
    importance = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(n, -1)
    hidden = hide(tokens, torch.arange(n), importance=importance)  # floor(0.3 * 4) = 1 of each cell
    drawn = np.bincount(hidden.gene[hidden.is_expressed], minlength=4)
    assert stats.chisquare(drawn, n * np.array([0.1, 0.2, 0.3, 0.4])).pvalue > 0.01
    even = np.bincount(hide(tokens, torch.arange(n)).gene[hidden.is_expressed], minlength=4)
    assert stats.chisquare(even).pvalue > 0.01
    zeros = np.bincount(hidden.gene[hidden.is_real & ~hidden.is_expressed], minlength=N_GENES)
    assert zeros[:4].sum() == 0
    assert stats.chisquare(zeros[4:]).pvalue > 0.01


def test_genes_that_the_data_lack_are_not_hidden():
    is_measured = torch.arange(N_GENES) < 20
    tokens = pad(torch.tensor([3, 7]), torch.ones(2), torch.tensor([0, 2]), padding=N_GENES)
    hidden = hide(tokens, torch.tensor([0]), zero_rate=0.5, is_measured=is_measured)
    zeros = hidden.gene[hidden.is_real & ~hidden.is_expressed]
    assert len(zeros) == 9
    assert (zeros < 20).all()


def test_half_of_the_latents_guide_each_cell():
    used = used_latents(torch.arange(200), 16)
    assert (used.sum(1) == 8).all()
    assert used.float().mean(0).min() > 0.3  # each takes its turn
    assert used_latents(torch.arange(3), 1).all()


# ---- latents


def test_latents_against_loops():
    torch.manual_seed(0)
    latents = LatentCrossAttention(6, n_latents=3, n_latent_hidden=8, n_heads=2)
    torch.nn.init.normal_(latents.adapter[2].weight)
    x, is_real = torch.randn(2, 4, 6), torch.tensor([[True, True, True, True], [True, True, False, False]])
    is_used = torch.tensor([[True, False, True], [False, True, False]])
    with torch.no_grad():
        added, attention = latents(x, is_real)
        importance = latents.importance(x, is_real, is_used)
        q, k, v = latents.to_q(latents.latents), latents.to_k(x), latents.to_v(x)
        for c in range(2):
            n = int(is_real[c].sum())
            weights = torch.zeros(2, 3, n)
            updated = latents.latents.clone()
            for h in range(2):
                part = slice(4 * h, 4 * h + 4)
                for i in range(3):
                    scores = torch.stack([q[i, part] @ k[c, j, part] / 2 for j in range(n)])
                    weights[h, i] = scores.softmax(0)
                    updated[i, part] += sum(weights[h, i, j] * v[c, j, part] for j in range(n))
            torch.testing.assert_close(importance[c, :n], weights.sum(0)[is_used[c]].sum(0), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(attention[c, :n], weights.mean((0, 1)), rtol=1e-5, atol=1e-6)
            want = latents.adapter(latents.norm(updated).mean(0))
            torch.testing.assert_close(added[c], want, rtol=1e-4, atol=1e-5)
        assert (importance[1, 2:] == 0).all()


def test_the_adapter_starts_without_effect():
    latents = LatentCrossAttention(6, n_latents=3, n_latent_hidden=8, n_heads=2)
    added, _ = latents(torch.randn(2, 4, 6), torch.ones(2, 4, dtype=torch.bool))
    assert (added == 0).all()
    with pytest.raises(ValueError, match="n_latent_heads=3 must divide n_latent_hidden=8"):
        LatentCrossAttention(6, n_latents=3, n_latent_hidden=8, n_heads=3)


def test_no_gradient_through_importance_and_some_through_the_summary():
    latents = LatentCrossAttention(6, n_latents=3, n_latent_hidden=8, n_heads=2)
    x, is_real = torch.randn(2, 4, 6, requires_grad=True), torch.ones(2, 4, dtype=torch.bool)
    assert not latents.importance(x, is_real, torch.ones(2, 3, dtype=torch.bool)).requires_grad
    torch.nn.init.normal_(latents.adapter[2].weight)
    latents(x, is_real)[0].sum().backward()
    assert latents.to_k.weight.grad.abs().max() > 0
    assert latents.latents.grad.abs().max() > 0


def test_concentration_is_one_minus_the_relative_entropy():
    is_real = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    attention = torch.tensor([[0.25] * 4, [0.5, 0.25, 0.25, 0], [1.0, 0, 0, 0], [1.0, 0, 0, 0]], requires_grad=True)
    got = concentration(attention, is_real)
    want = [0, 1 - stats.entropy([0.5, 0.25, 0.25]) / np.log(3), 1, 0]
    np.testing.assert_allclose(got.detach(), want, atol=1e-6)
    got.sum().backward()
    assert torch.isfinite(attention.grad).all()  # p log p has an infinite slope at 0, where padding is


# ---- decoder


def decoder(n_layers=1, n_features=None):
    torch.manual_seed(0)
    return GeneDecoder(6, 8, n_layers=n_layers, n_heads=2, dim_head=None, n_features=n_features, n_norms=1)


def entering(seed=0):
    rng = torch.Generator().manual_seed(seed)
    gene = torch.stack([torch.randperm(N_GENES, generator=rng)[:9] for _ in range(3)])
    is_real = torch.tensor([[1] * 9, [1] * 4 + [0] + [1] * 2 + [0] * 2, [1, 0, 0, 0, 0, 1, 0, 0, 0]]).bool()
    x = torch.randn(3, 9, 6, generator=rng)
    blank = torch.randn(N_GENES, 6, generator=rng)
    return blank, (x[:, :5], gene[:, :5], is_real[:, :5]), (x[:, 5:], gene[:, 5:], is_real[:, 5:])


@pytest.mark.parametrize(("n_layers", "n_features"), [(1, None), (2, None), (2, 7)])
def test_decoder_against_one_cell_at_a_time(n_layers, n_features):
    layer, (blank, seen, hidden) = decoder(n_layers, n_features), entering()
    got = layer(blank, seen, hidden)
    for c in range(3):
        x = blank.clone()
        for part in (seen, hidden):
            x[part[1][c][part[2][c]]] = part[0][c][part[2][c]]  # scattered into all genes
        x = layer.embed(x).unsqueeze(0)
        for block in layer.layers:
            x = block(x)
        want = layer.to_value(layer.norm(x))[0, :, 0]
        genes = hidden[1][c][hidden[2][c]]
        torch.testing.assert_close(got[c][hidden[2][c]], want[genes], rtol=1e-4, atol=1e-5)


def test_sparse_decoding_is_the_full_one_with_its_gradients():
    layer, (blank, seen, hidden) = decoder(), entering()
    assert layer.is_sparse
    gradients, outs = [], []
    for is_sparse in (True, False):
        layer.is_sparse = is_sparse
        layer.zero_grad()
        given = blank.clone().requires_grad_()
        out = layer(given, seen, hidden)[hidden[2]]
        out.square().sum().backward()
        outs.append(out)
        gradients.append([given.grad, *(p.grad.clone() for p in layer.parameters())])
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-4, atol=1e-5)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


# ---- encoder and pooling


def test_padding_does_not_reach_the_encoder_and_values_do():
    torch.manual_seed(0)
    encoder = GeneEncoder(
        N_GENES, n_hidden=8, n_layers=2, n_heads=2, n_ff=16, n_bins=5, bin_alpha=1.0, latents=None, dropout_rate=0.0
    )
    tokens = cells([3, 9])
    x, _ = encoder(encoder.embed(tokens), tokens.is_real)
    alone = pad(tokens.gene[0, :3], tokens.value[0, :3], torch.tensor([0, 3]), padding=N_GENES)
    y, _ = encoder(encoder.embed(alone), alone.is_real)
    torch.testing.assert_close(x[0, :3], y[0], rtol=1e-4, atol=1e-5)


def test_pools_of_tokens():
    x = torch.randn(2, 5, 3)
    is_real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    np.testing.assert_allclose(pool_tokens(x, is_real, "mean", n_depth=0)[1], x[1, :3].mean(0), rtol=1e-5)
    np.testing.assert_allclose(pool_tokens(x, is_real, "max", n_depth=0)[1], x[1, :3].amax(0))
    every = pool_tokens(x, is_real, "all", n_depth=2)  # own depth, target depth, max and mean over genes
    want = torch.cat([x[0, 4], x[0, 3], x[0, :3].amax(0), x[0, :3].mean(0)])
    torch.testing.assert_close(every[0], want)
    torch.testing.assert_close(every[1], torch.cat([x[1, 2], x[1, 1], x[1, 0], x[1, 0]]))


def test_front_moves_what_is_kept_to_the_left():
    index, is_real = front(torch.tensor([[False, True, False, True], [False, False, False, True]]))
    assert index[0].tolist() == [1, 3]
    assert index[1, 0] == 3
    assert is_real.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("pool", [mean_pool, attention_pool])
def test_samples_are_pooled_alike_in_any_pieces(pool):
    x = 3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    mean = x.double().mean(0)
    weight = torch.ones(50).double() / 50 if pool is mean_pool else (x.double() @ mean / 2).softmax(0)
    want = (weight @ x.double()).float()
    for size in (1, 7, 50):
        torch.testing.assert_close(pool(lambda size=size: iter(x.split(size)))[0], want, rtol=1e-5, atol=1e-6)
