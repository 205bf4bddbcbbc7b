"""Transformer blocks and encoder against torch's own layer, and the laws of a set function."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scset_tools.nn import TransformerBlock, TransformerEncoder, TransformerPool, ptr_from_sizes, to_padded


def make(cls=TransformerEncoder, *args, **arguments):
    torch.manual_seed(0)
    module = cls(*(args or (5, 8)), **({"n_heads": 2} | arguments)).double()
    with torch.no_grad():
        for p in module.parameters():
            p += 0.2 * torch.randn_like(p)
    return module.eval()


def cells(n, width=5, seed=0):
    return torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def torch_layer(block):
    """torch's own post-norm layer with the weights of a block."""
    d = block.norm_output.normalized_shape[0]
    layer = torch.nn.TransformerEncoderLayer(
        d, block.n_heads, block.feed_forward[0].out_features, 0.0, activation="gelu", batch_first=True
    ).double()
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(block.query_key_value.weight)
        layer.self_attn.in_proj_bias.copy_(block.query_key_value.bias)
        for name, own in {
            "self_attn.out_proj": block.output,
            "linear1": block.feed_forward[0],
            "linear2": block.feed_forward[3],
            "norm1": block.norm_attention,
            "norm2": block.norm_output,
        }.items():
            layer.get_submodule(name).load_state_dict(own.state_dict())
    return layer


def by_hand(encoder, x):
    """[CLS] through torch's layers, each applied in full to [CLS] and all cells."""
    rows = torch.cat([encoder.pool.cls[None], x @ encoder.lift.weight.T + encoder.lift.bias])[None]
    for block in encoder.pool.layers:
        rows = torch_layer(block)(rows)
    return rows[0, 0]


@pytest.mark.parametrize("n_cells", [1, 6])
def test_a_block_is_that_of_torch(n_cells):
    block, x = make(TransformerBlock, 8), cells(n_cells, 8)
    torch.testing.assert_close(block(x), torch_layer(block)(x[None])[0])


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=4), n_layers=st.integers(1, 3))
def test_the_state_of_cls_in_every_spelling_of_a_batch(counts, n_layers):
    encoder, x, ptr = make(n_layers=n_layers), cells(sum(counts)), ptr_from_sizes(counts)
    expected = torch.stack([by_hand(encoder, x[a:b]) for a, b in itertools.pairwise(ptr)])
    torch.testing.assert_close(encoder(x, ptr), expected)
    torch.testing.assert_close(encoder(x, ptr, _layout="padded"), expected)
    dense, is_real = to_padded(x, ptr)
    torch.testing.assert_close(encoder(dense.masked_fill(~is_real[..., None], torch.nan), is_real=is_real), expected)


def test_a_block_in_every_spelling_of_a_batch():
    block, x, ptr = make(TransformerBlock, 8), cells(9, 8), ptr_from_sizes([4, 0, 5])
    want = torch.cat([block(x[:4]), block(x[4:])])
    torch.testing.assert_close(block(x, ptr), want)
    dense, is_real = to_padded(x, ptr)
    out = block(dense.masked_fill(~is_real[..., None], torch.nan), is_real=is_real)
    torch.testing.assert_close(out[is_real], want)
    assert (out[~is_real] == 0).all()


def test_gradients_are_those_of_the_full_computation():
    encoder, x, ptr = make(), cells(7), ptr_from_sizes([3, 4])
    weights = list(encoder.parameters())
    got = torch.autograd.grad(encoder(x, ptr).square().sum(), weights)
    reference = torch.stack([by_hand_with_grad(encoder, part) for part in (x[:3], x[3:])])
    want = torch.autograd.grad(reference.square().sum(), weights)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def by_hand_with_grad(encoder, x):
    """The slow loop from eq. 7-8: one head and one cell at a time, every block in full."""
    rows = torch.cat([encoder.pool.cls[None], encoder.lift(x)])
    for block in encoder.pool.layers:
        q, k, v = block.query_key_value(rows).chunk(3, -1)
        e = rows.shape[1] // block.n_heads
        heads = []
        for h in range(block.n_heads):
            part = slice(h * e, (h + 1) * e)
            heads.append(torch.softmax(q[:, part] @ k[:, part].T / e**0.5, -1) @ v[:, part])
        hidden = block.norm_attention(rows + block.output(torch.cat(heads, -1)))
        rows = block.norm_output(hidden + block.feed_forward(hidden))
    return rows[0]


def test_order_of_cells_and_batch_mates_do_not_matter():
    encoder, x = make(), cells(6)
    alone = encoder(x)
    torch.testing.assert_close(encoder(x.flip(0)), alone)
    torch.testing.assert_close(encoder(torch.cat([x, 100 * x[:2]]), ptr_from_sizes([6, 2]))[:1], alone)


def test_no_samples_and_empty_samples():
    encoder = make()
    assert encoder(cells(0), ptr_from_sizes([])).shape == (0, 8)
    assert encoder.get_attention(cells(0), ptr_from_sizes([])).shape == (0, 2)
    out = encoder(cells(2), ptr_from_sizes([0, 2, 0]))
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out[0], out[2])


def test_attention_is_that_of_cls_among_cells():
    encoder, x = make(n_layers=1), cells(5)
    block = encoder.pool.layers[0]
    rows = torch.cat([encoder.pool.cls[None], encoder.lift(x)])
    q, k, _ = block.query_key_value(rows).chunk(3, -1)
    want = []
    for h in range(2):
        part = slice(4 * h, 4 * h + 4)
        full = torch.softmax(k[:, part] @ q[0, part] / 2, 0)[1:]
        want.append(full / full.sum())
    torch.testing.assert_close(encoder.get_attention(x), torch.stack(want, 1))
    both = encoder.get_attention(torch.cat([x, cells(3, seed=1)]), ptr_from_sizes([5, 3]))
    torch.testing.assert_close(both[:5], torch.stack(want, 1))
    torch.testing.assert_close(both[5:].sum(0), torch.ones(2, dtype=torch.float64))


def test_dropout_acts_in_training_alone():
    encoder, x = make(dropout_rate=0.5), cells(6)
    torch.testing.assert_close(encoder(x), encoder(x))
    encoder.train()
    assert not torch.equal(encoder(x), encoder(x))


def test_bad_sizes():
    with pytest.raises(ValueError, match=r"`n_heads` \(3\) must divide the width \(8\)"):
        TransformerBlock(8, 3)
    with pytest.raises(ValueError, match="`n_layers` must be 1 or more, found 0"):
        TransformerPool(8, 2, n_layers=0)
