"""A stream of cells gives what the whole sample gives."""

from __future__ import annotations

import pytest
import torch

from scset_tools.nn import SetEncoder, _streaming, stream_attention, stream_embed
from scset_tools.nn._memory import rows_at_once

N_CELLS = 50


def make(n_inducing=3, **arguments):
    torch.manual_seed(0)
    encoder = SetEncoder(4, 8, 5, n_heads=2, n_inducing=n_inducing, n_layers=2, **arguments).double()
    with torch.no_grad():
        for p in encoder.parameters():
            p += 0.3 * torch.randn_like(p)
    return encoder


def cells(n=N_CELLS):
    return torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(_streaming, "_BLOCK", 7)


CUTS = pytest.mark.parametrize(
    "cut",
    [
        pytest.param([N_CELLS], id="whole"),
        pytest.param([1] * N_CELLS, id="single cells"),
        pytest.param([7] * 7 + [1], id="blocks"),
        pytest.param([3, 0, 30, 1, 16], id="uneven, one empty"),
    ],
)


@pytest.mark.usefixtures("small_blocks")
@CUTS
@pytest.mark.parametrize("n_inducing", [pytest.param(3, id="folded"), pytest.param(12, id="projected")])
@pytest.mark.parametrize("cache_blocks", [0, 1, 3, 7, 8, 100])
def test_stream_equals_whole(cut, n_inducing, cache_blocks):
    encoder, x = make(n_inducing), cells()
    calls = []

    def chunks():
        calls.append(1)
        return iter(x.split(cut))

    cache_bytes = cache_blocks * 7 * 8 * 8  # rows of a block, width, bytes of a float64
    torch.testing.assert_close(stream_embed(encoder, chunks, cache_bytes=cache_bytes), encoder(x))
    assert len(calls) == (1 if cache_blocks >= 8 else 3)
    weights = stream_attention(encoder, chunks, cache_bytes=cache_bytes)
    torch.testing.assert_close(weights, encoder.get_attention(x))


def test_result_does_not_depend_on_the_cut_to_the_last_bit():
    encoder, x = make().float(), cells(5000).float()
    whole = stream_embed(encoder, lambda: [x])
    assert torch.equal(stream_embed(encoder, lambda: x.split(999)), whole)
    assert torch.equal(stream_embed(encoder, lambda: x.split(3000), cache_bytes=0), whole)
    torch.testing.assert_close(whole, encoder(x), rtol=1e-5, atol=1e-5)
    assert not whole.requires_grad


def test_input_is_not_changed_and_may_be_of_another_type():
    encoder, x = make().float(), cells(20).float()
    before = x.clone()
    result = stream_embed(encoder, lambda: [x.double()])
    torch.testing.assert_close(result, stream_embed(encoder, lambda: [x]))
    assert torch.equal(x, before)


@pytest.mark.usefixtures("small_blocks")
def test_huge_scores_do_not_overflow():
    encoder, x = make(), cells()
    with torch.no_grad():
        encoder.pool.seeds.mul_(1e4)
        encoder.layers[0].inducing.mul_(1e4)
    for order in (x, x.flip(0)):
        torch.testing.assert_close(stream_embed(encoder, lambda order=order: [order]), encoder(x))


def test_no_cells_give_the_embedding_of_an_empty_sample():
    encoder = make()
    for chunks in (list, lambda: [cells(0)]):
        torch.testing.assert_close(stream_embed(encoder, chunks), encoder(cells(0)))
        assert stream_attention(encoder, chunks).shape == (0, 2)


def test_dropout_is_left_out():
    encoder, x = make(dropout_rate=0.5).float(), cells().float()
    result = stream_embed(encoder.train(), lambda: [x])
    torch.testing.assert_close(result, encoder.eval()(x))


def test_a_hundred_thousand_cells():
    torch.manual_seed(0)
    encoder, x = SetEncoder(4, 16, 8, n_layers=2, n_inducing=4), cells(100_000).float()
    with torch.no_grad():
        expected = encoder(x)
    result = stream_embed(encoder, lambda: x.split(30_000), cache_bytes=2**20)
    assert (result - expected).norm() < 1e-5 * expected.norm()


def test_width_of_the_chunks():
    with pytest.raises(ValueError, match=r"Every chunk must have shape \(cells, 4\), found \(3, 5\)"):
        stream_embed(make(), lambda: [torch.zeros(3, 5)])


@pytest.mark.parametrize(("n_heads", "n_inducing"), [(2, 3), (4, 40)], ids=["folded", "plain"])
def test_half_precision_streams_what_it_encodes(n_heads, n_inducing):
    """Products in half precision, sums over cells not: far more cells than its eight bits could count."""
    torch.manual_seed(0)
    encoder = SetEncoder(5, 32, 6, n_layers=2, n_heads=n_heads, n_inducing=n_inducing).eval()
    x = torch.randn(20_000, 5)
    whole = stream_embed(encoder, lambda: iter(x.split(3_000)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = stream_embed(encoder, lambda: iter(x.split(3_000)))
        pooled = stream_attention(encoder, lambda: iter(x.split(3_000)))
    assert not torch.equal(half.float(), whole)
    assert float((half.float() - whole).abs().max()) < 0.03 * float(whole.abs().max())
    torch.testing.assert_close(pooled.sum(0).float(), torch.ones(n_heads), rtol=1e-3, atol=1e-3)


def test_blocks_of_a_gpu_are_cut_by_its_memory(monkeypatch):
    gpu = torch.device("cuda", 0)
    assert rows_at_once(torch.device("cpu"), 1, on_cpu=7) == 7
    found = {}
    for free in (2**30, 2**33, 2**37):
        monkeypatch.setattr("scset_tools.nn._memory._free", lambda _, free=free: free)
        found[free] = rows_at_once(gpu, 20_000, on_cpu=7)
        assert found[free] * 20_000 <= max(free / 16, 2_048 * 20_000)
        assert found[free].bit_count() == 1
    assert list(found.values()) == sorted(found.values())
    assert found[2**37] > found[2**30]
