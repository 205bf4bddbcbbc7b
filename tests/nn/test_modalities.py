"""Parts of samples, whose cells have the same modalities: against loops over cells."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from scset_tools.nn import MarginalTokenPool, ModalityParts

MODALITY = torch.tensor([0, 1, 0, 1, 2])
HAS = {"a": [0], "b": [1], "c": [2], "ab": [0, 1], "none": []}


def cells(kinds, seed=0):
    """Cells that have the features of their modalities; the first feature of each may be missing by itself."""
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(len(kinds), len(MODALITY)))).float()
    for i, kind in enumerate(kinds):
        x[i, ~torch.isin(MODALITY, torch.tensor(HAS[kind], dtype=torch.int64))] = torch.nan
    return x


KINDS = ["ab", "a", "b", "a", "ab", "c", "b", "none", "a"]
PTR = torch.tensor([0, 5, 9])


@pytest.mark.parametrize("is_paired", [True, False])
def test_the_vector_of_a_sample_is_the_weighted_mean_of_its_parts(is_paired):
    parts = ModalityParts(MODALITY, is_paired=is_paired)(cells(KINDS), PTR)
    z = torch.arange(2.0 * len(parts.sample)).reshape(-1, 2)
    code = {"a": 1, "b": 2, "ab": 3, "c": 4, "none": 0}
    for s, (start, stop) in enumerate(itertools.pairwise(PTR.tolist())):
        own = [code[k] for k in KINDS[start:stop]]
        weight = {c: (own.count(c) if is_paired else 1) * (c > 0) for c in set(own)}
        want = sum(
            weight[c] * z[i]
            for i, (c, of) in enumerate(zip(parts.code.tolist(), parts.sample.tolist(), strict=True))
            if of == s
        )
        torch.testing.assert_close(parts.pool(z)[s], want / sum(weight.values()))
        torch.testing.assert_close(parts.pool(z.expand(3, -1, -1))[2, s], want / sum(weight.values()))
    rows = parts.order.split(parts.ptr.diff().tolist())
    for own, c, s in zip(rows, parts.code.tolist(), parts.sample.tolist(), strict=True):
        assert [code[KINDS[i]] for i in own] == [c] * len(own)
        assert all(PTR[s] <= i < PTR[s + 1] for i in own)
    if not is_paired:
        assert parts.kind[parts.code == 4].tolist() == [2]


def test_weights_of_cells_within_parts_become_weights_within_samples():
    splitter = ModalityParts(MODALITY, is_paired=False)
    kinds = ["a", "b", "a", "a", "b", "a"]
    parts = splitter(cells(kinds), torch.tensor([0, 4, 6]))
    within = torch.cat([torch.full((int(n), 1), 1 / int(n)) for n in parts.ptr.diff()])
    want = torch.tensor([1 / 6, 1 / 2, 1 / 6, 1 / 6, 1 / 2, 1 / 2])[:, None]
    torch.testing.assert_close(parts.spread(within), want)
    x = cells(kinds[:4])
    found = splitter.attention_in_pieces(
        lambda: iter(x.split(3)), lambda rows: torch.full((n := sum(map(len, rows())), 1), 1 / n)
    )
    torch.testing.assert_close(found, want[:4])


def test_pieces_are_the_parts():
    splitter = ModalityParts(MODALITY, is_paired=True)
    x = cells(KINDS[:5])
    whole = splitter(x, torch.tensor([0, 5]))
    for (kind, weight, rows), n, w in zip(
        splitter.in_pieces(lambda: iter(x.split(2))), whole.ptr.diff(), whole.weight, strict=True
    ):
        assert kind.tolist() == [0]
        assert weight == pytest.approx(float(w))
        assert sum(map(len, rows())) == n


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_a_sample_loses_modalities_at_the_rate_and_keeps_one(rate):
    splitter = ModalityParts(MODALITY, is_paired=True)
    n = 4000
    x = cells(["ab", "a"] * n)
    ptr, seed = torch.arange(n + 1) * 2, torch.arange(n)
    shown = splitter.drop(x, ptr, seed, rate=rate, stream=3)
    assert torch.equal(shown[~shown.isnan()], x[~shown.isnan()])
    code = splitter.codes(shown).view(n, 2)
    code = code[:, 0] | code[:, 1]
    assert (code > 0).all()
    lost = (code < 3).double().mean()
    assert lost == pytest.approx(1 - (1 - rate) ** 2, abs=0.03)  # one of the two, whichever
    assert ((code == 1).double().mean() - (code == 2).double().mean()).abs() < 0.05
    alone = splitter.drop(x[2:4], ptr[:2], seed[1:2], rate=rate, stream=3)
    torch.testing.assert_close(alone, shown[2:4], equal_nan=True)


def test_one_modality_always_stays():
    splitter = ModalityParts(MODALITY, is_paired=False)
    x = cells(["a"] * 20)
    shown = splitter.drop(x, torch.arange(21), torch.arange(20), rate=1.0, stream=3)
    torch.testing.assert_close(shown, x, equal_nan=True)


def test_groups_of_sets_are_centred_each_by_itself():
    """Sets of one group lie around zero, at the same variance as those of another on another scale."""
    torch.manual_seed(0)
    pool = MarginalTokenPool(3, 2, 8, n_groups=2)
    n, size = 40, 30
    group = torch.arange(n) % 2
    own = torch.randn(n, 3) * torch.where(group == 0, 0.2, 2.0)[:, None] + 3 * group[:, None]
    x = (own[:, None] + torch.randn(n, size, 3)).flatten(0, 1)
    ptr = torch.arange(n + 1) * size
    pool.calibrate(pool.sums(x, ptr), ptr.diff(), group)
    z = pool(x, ptr, group)
    for g in (0, 1):
        torch.testing.assert_close(z[group == g].mean(0), torch.zeros(8), atol=1e-4, rtol=0)
        assert float(z[group == g].square().sum(1).mean()) == pytest.approx(8, rel=0.05)
    torch.testing.assert_close(pool.embed_pieces(x[:size].split(7), group[:1]), z[:1], atol=1e-4, rtol=1e-4)
