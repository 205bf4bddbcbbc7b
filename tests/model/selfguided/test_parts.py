"""Masks, latents, decoder and pooling against slow references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from scset_tools.model.selfguided._decoder import GeneDecoder
from scset_tools.model.selfguided._encoder import GeneEncoder, pool_tokens
from scset_tools.model.selfguided._latents import LatentCrossAttention, Zeros, overlap, relative_perplexity
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
    arguments = {
        "importance": None,
        "candidates": "expressed",
        "rate": 0.3,
        "zero_rate": 0.1,
        "is_measured": MEASURED,
        **kwargs,
    }
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
    hidden = hide(tokens, torch.arange(n), importance=(importance, None))  # floor(0.3 * 4) = 1 of each cell
    drawn = np.bincount(hidden.gene[hidden.is_expressed], minlength=4)
    assert stats.chisquare(drawn, n * np.array([0.1, 0.2, 0.3, 0.4])).pvalue > 0.01
    even = np.bincount(hide(tokens, torch.arange(n)).gene[hidden.is_expressed], minlength=4)
    assert stats.chisquare(even).pvalue > 0.01
    zeros = np.bincount(hidden.gene[hidden.is_real & ~hidden.is_expressed], minlength=N_GENES)
    assert zeros[:4].sum() == 0
    assert stats.chisquare(zeros[4:]).pvalue > 0.01


def test_all_genes_are_candidates_of_one_draw():
    n = 4_000
    tokens = pad(torch.tensor([4, 9]).repeat(n), torch.ones(2 * n), torch.arange(n + 1) * 2, padding=N_GENES + 2)
    is_measured = torch.arange(N_GENES) < 30
    weight = torch.arange(1.0, N_GENES + 1)
    is_zero = is_measured & (torch.arange(N_GENES) != 4) & (torch.arange(N_GENES) != 9)
    importance = (weight[[4, 9]].expand(n, -1), (weight * is_zero).expand(n, -1))
    arguments = {"candidates": "all", "rate": 0.0, "zero_rate": 1 / 28, "is_measured": is_measured}
    one = hide(tokens, torch.arange(n), importance=importance, **arguments)
    drawn = np.bincount(one.gene[one.is_real], minlength=N_GENES)
    assert (one.is_real.sum(1) == 1).all()
    assert drawn[30:].sum() == 0  # not measured: a zero there means nothing
    assert stats.chisquare(drawn[:30], n * (weight[:30] / weight[:30].sum()).double().numpy()).pvalue > 0.01
    even = hide(tokens, torch.arange(n), **arguments)
    assert stats.chisquare(np.bincount(even.gene[even.is_real], minlength=N_GENES)[:30]).pvalue > 0.01
    assert (one.value[one.is_real] == torch.isin(one.gene[one.is_real], torch.tensor([4, 9])).float()).all()
    assert torch.equal(one.is_expressed[:, 0], torch.isin(one.gene[:, 0], torch.tensor([4, 9])))


def test_one_expressed_gene_stays_in_sight_of_a_mask_of_all_genes():
    sizes = [1, 2, 10, 33]
    tokens, seed = cells(sizes), torch.arange(4)
    importance = (1e6 * tokens.is_real.double(), torch.full((4, N_GENES), 1e-6, dtype=torch.float64))
    hidden = hide(tokens, seed, importance=importance, candidates="all", rate=0.5, zero_rate=0.5)
    assert hidden.is_visible.sum(1).tolist() == [1, 1, 1, 14]  # 16 + 3 of 40 are hidden in the last
    assert (hidden.is_expressed.sum(1) + hidden.is_visible.sum(1)).tolist() == sizes
    for i in range(4):
        drawn = hidden.gene[i][hidden.is_real[i]].tolist()
        assert len(set(drawn)) == len(drawn)
        assert set(tokens.gene[i][hidden.is_visible[i]].tolist()).isdisjoint(drawn)


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


@pytest.mark.parametrize("with_zeros", [False, True])
def test_latents_against_loops(with_zeros):
    torch.manual_seed(0)
    latents = LatentCrossAttention(6, n_latents=3, n_latent_hidden=8, n_heads=2)
    torch.nn.init.normal_(latents.adapter[2].weight)
    torch.nn.init.normal_(latents.norm_tokens.weight)
    latents.log_scale.data = torch.tensor([0.4, 1.3])
    x, is_real = torch.randn(2, 4, 6), torch.tensor([[True, True, True, True], [True, True, False, False]])
    is_used = torch.tensor([[True, False, True], [False, True, False]])
    blank, is_measured = torch.randn(7, 6), torch.arange(7) != 3
    is_there = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]]).bool()
    zeros = Zeros(blank, is_measured, is_there) if with_zeros else None
    with torch.no_grad():
        added, attention = latents(x, is_real, zeros)
        importance, of_zeros = latents.importance(x, is_real, is_used, zeros=zeros)
        q = latents.to_q(latents.latents)
        for c in range(2):
            read = x[c][is_real[c]]
            n = len(read)
            if with_zeros:
                read = torch.cat([read, blank[is_there[c]]])  # one after the other, as if each were a token
            read = torch.nn.functional.layer_norm(read, (6,)) * latents.norm_tokens.weight
            k, v = latents.to_k(read), latents.to_v(read)
            weights = torch.zeros(2, 3, len(read))
            updated = latents.latents.clone()
            for h in range(2):
                part = slice(4 * h, 4 * h + 4)
                for i in range(3):
                    cosine = [torch.cosine_similarity(q[i, part], row[part], dim=0) for row in k]
                    weights[h, i] = (torch.stack(cosine) * latents.log_scale[h].exp()).softmax(0)
                    updated[i, part] += sum(weights[h, i, j] * v[j, part] for j in range(len(read)))
            summed = weights.sum(0)[is_used[c]].sum(0)
            torch.testing.assert_close(importance[c, :n], summed[:n], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(attention[c, :, :n], weights.mean(0)[:, :n], rtol=1e-5, atol=1e-6)
            if with_zeros:
                torch.testing.assert_close(of_zeros[c][is_there[c]], summed[n:], rtol=1e-5, atol=1e-6)
                assert (of_zeros[c][~is_there[c]] == 0).all()
            want = latents.adapter(latents.norm(updated).mean(0))
            torch.testing.assert_close(added[c], want, rtol=1e-4, atol=1e-5)
        assert (importance[1, 2:] == 0).all()


@pytest.mark.parametrize("n_latents", [4, 16, 64])
@pytest.mark.parametrize("shared", [0.0, 20.0])
def test_importance_starts_with_the_spread_asked_for(n_latents, shared):
    """For any number of maps that are summed, and where embeddings have a direction in common, as pretrained ones do."""
    torch.manual_seed(0)
    latents = LatentCrossAttention(32, n_latents=n_latents, n_latent_hidden=64, n_heads=4, importance_spread=0.3)
    x = torch.randn(600, 32) + shared * torch.randn(32)
    latents.calibrate(x)
    cells, seeds = x.expand(20, -1, -1), torch.arange(20)
    weight, _ = latents.importance(cells, torch.ones(20, 600, dtype=torch.bool), used_latents(seeds, n_latents))
    spread = weight.std(1) / weight.mean(1)
    assert float(spread.mean()) == pytest.approx(0.3, rel=0.2)


def test_the_adapter_starts_without_effect():
    latents = LatentCrossAttention(6, n_latents=3, n_latent_hidden=8, n_heads=2)
    added, _ = latents(torch.randn(2, 4, 6), torch.ones(2, 4, dtype=torch.bool))
    assert (added == 0).all()
    with pytest.raises(ValueError, match="n_latent_heads=3 must divide n_latent_hidden=8"):
        LatentCrossAttention(6, n_latents=3, n_latent_hidden=8, n_heads=3)


def test_no_gradient_through_importance_and_some_through_the_summary():
    latents = LatentCrossAttention(6, n_latents=3, n_latent_hidden=8, n_heads=2)
    x, is_real = torch.randn(2, 4, 6, requires_grad=True), torch.ones(2, 4, dtype=torch.bool)
    assert not latents.importance(x, is_real, torch.ones(2, 3, dtype=torch.bool))[0].requires_grad
    torch.nn.init.normal_(latents.adapter[2].weight)
    latents(x, is_real)[0].sum().backward()
    assert latents.to_k.weight.grad.abs().max() > 0
    assert latents.latents.grad.abs().max() > 0
    assert latents.log_scale.grad.abs().max() > 0


def test_overlap_is_the_mean_cosine_of_two_latents():
    attention = torch.rand(3, 5, 8, generator=torch.Generator().manual_seed(0))
    want = [
        np.mean([torch.cosine_similarity(a[i], a[j], dim=0) for i in range(5) for j in range(5) if i != j])
        for a in attention
    ]
    np.testing.assert_allclose(overlap(attention), want, rtol=1e-5)
    np.testing.assert_allclose(overlap(torch.full((1, 4, 6), 1 / 6)), [1], rtol=1e-5)  # all even: all the same
    np.testing.assert_allclose(overlap(torch.eye(4)[None]), [0], atol=1e-6)
    assert overlap(attention[:, :1]).tolist() == [0, 0, 0]


def test_perplexity_is_relative_to_even():
    is_candidate = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    weight = torch.tensor([[3.0] * 4, [2.0, 1.0, 1.0, 9.0], [5.0, 0, 0, 0], [1.0, 0, 0, 0]])
    want = [1, np.exp(stats.entropy([0.5, 0.25, 0.25])) / 3, 0.25, 1]
    np.testing.assert_allclose(relative_perplexity(weight, is_candidate), want, rtol=1e-5)


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
