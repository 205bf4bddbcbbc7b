"""Attention blocks against a slow loop written from MAESTRO eq. 1-7."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scset_tools.nn import ISAB, MAB, PMA, SAB, from_padded, ptr_from_sizes, to_padded

LAYOUTS = ["loop", "padded"]
DIM = 8


# Equations 1-7, one query and one head at a time, on one sample.


def slow_mha(attention, x, y, multiplicity=None):
    multiplicity = torch.ones(len(y), dtype=y.dtype) if multiplicity is None else multiplicity
    q, k, v = x @ attention.query.weight.T, y @ attention.key.weight.T, y @ attention.value.weight.T
    width = q.shape[1] // attention.n_heads
    rows = []
    for i in range(len(x)):
        heads = []
        for h in range(attention.n_heads):
            part = slice(h * width, (h + 1) * width)
            raw = [multiplicity[j] * torch.exp(q[i, part] @ k[j, part] / math.sqrt(width)) for j in range(len(y))]
            total = sum(raw)
            heads.append(sum((w / total * v[j, part] for j, w in enumerate(raw)), torch.zeros(width, dtype=x.dtype)))
        rows.append(torch.cat(heads) @ attention.output.weight.T)
    return torch.stack(rows) if rows else x


def slow_norm(norm, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + norm.eps) * norm.weight + norm.bias


def slow_mab(mab, x, y, multiplicity=None):
    hidden = slow_norm(mab.norm_attention, x + slow_mha(mab.attention, x, y, multiplicity))
    w1, w2 = mab.feed_forward.gate_and_value.weight.chunk(2)
    gate = hidden @ w1.T
    inner = gate / (1 + torch.exp(-gate)) * (hidden @ w2.T)
    return slow_norm(mab.norm_output, hidden + inner @ mab.feed_forward.output.weight.T)


def slow_block(block, x, multiplicity=None):
    if isinstance(block, SAB):
        return slow_mab(block.mab, x, x, multiplicity)
    if isinstance(block, PMA):
        return slow_mab(block.mab, block.seeds, x, multiplicity)
    return slow_mab(block.spread, x, slow_mab(block.gather, block.inducing, x, multiplicity))


def perturb(module):
    """Move every weight off its initial value (norms start at one and zero, which would hide a missing factor)."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.3 * torch.randn(p.shape, dtype=p.dtype, generator=generator)
    return module


def make(name, *, dim=DIM, few=2):
    """A block in float64; ``few`` inducing points make folding cheaper, 12 make it dearer than projecting."""
    torch.manual_seed(0)
    block = {
        "SAB": lambda: SAB(dim, 2),
        "ISAB": lambda: ISAB(dim, 2, n_inducing=few, n_ff=5),
        "PMA": lambda: PMA(dim, 2, n_seeds=few),
    }[name]()
    return perturb(block.double())


def cells(n, seed=0, dim=DIM):
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


BLOCKS = pytest.mark.parametrize(
    ("name", "few"), [("SAB", 0), ("ISAB", 2), ("ISAB", 12), ("PMA", 1), ("PMA", 2), ("PMA", 12)]
)


@BLOCKS
@settings(max_examples=8, deadline=None)
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=4), weighted=st.booleans())
def test_ragged_equals_dense_equals_the_equations(name, few, counts, weighted):
    block, x, ptr = make(name, few=few), cells(sum(counts)), ptr_from_sizes(counts)
    log_weight = torch.linspace(-1, 2, len(x), dtype=x.dtype) if weighted else None
    expected = []
    for start, end in itertools.pairwise(ptr):
        expected.append(slow_block(block, x[start:end], log_weight[start:end].exp() if weighted else None))
    expected = torch.stack(expected) if name == "PMA" else torch.cat(expected)

    torch.testing.assert_close(block(x, ptr, log_weight=log_weight), expected)
    for layout in LAYOUTS:
        torch.testing.assert_close(block(x, ptr, log_weight=log_weight, _layout=layout), expected)

    dense, is_real = to_padded(x, ptr)
    dense = dense.masked_fill(~is_real[..., None], torch.nan)
    dense_weight = to_padded(log_weight, ptr)[0].masked_fill(~is_real, torch.nan) if weighted else None
    result = block(dense, is_real=is_real, log_weight=dense_weight)
    if name != "PMA":
        assert (result[~is_real] == 0).all()
        result = from_padded(result, is_real)[0]
    torch.testing.assert_close(result, expected)


@BLOCKS
def test_equal_sizes_need_no_boundaries(name, few):
    block, x = make(name, few=few), cells(12).view(3, 4, DIM)
    expected = torch.stack([slow_block(block, part) for part in x])
    torch.testing.assert_close(block(x), expected)
    one = block(x[0])
    torch.testing.assert_close(one if name != "PMA" else one[0], expected[0])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "counts", [([3, 1], [2, 4]), ([3, 3], [2, 4]), ([1, 5], [3, 3]), ([9, 7], [2, 2]), ([2, 2], [0, 9])]
)
def test_mab_with_queries_and_keys_of_any_size(counts, layout):
    mab = perturb(MAB(DIM, 4).double())
    x, y = cells(sum(counts[0])), cells(sum(counts[1]), seed=1)
    ptr, y_ptr = ptr_from_sizes(counts[0]), ptr_from_sizes(counts[1])
    log_weight = torch.linspace(-1, 2, len(y), dtype=x.dtype)
    expected = torch.cat(
        [
            slow_mab(mab, x[a:b], y[c:d], log_weight[c:d].exp())
            for a, b, c, d in zip(ptr, ptr[1:], y_ptr, y_ptr[1:], strict=False)
        ]
    )
    result = mab(x, y, ptr, y_ptr=y_ptr, log_weight=log_weight, _layout=layout)
    torch.testing.assert_close(result, expected)
    dense, is_real = to_padded(y, y_ptr)
    result = mab(x, dense, ptr, y_is_real=is_real, log_weight=to_padded(log_weight, y_ptr)[0], _layout=layout)
    torch.testing.assert_close(result, expected)


@BLOCKS
@pytest.mark.parametrize("layout", LAYOUTS)
def test_log_weight_stands_for_repeated_cells(name, few, layout):
    block, x, copies = make(name, few=few), cells(6), torch.tensor([1, 3, 2, 1, 1, 4])
    repeated = x.repeat_interleave(copies, 0)
    ptr, repeated_ptr = ptr_from_sizes([2, 4]), ptr_from_sizes([4, 8])
    short = block(x, ptr, log_weight=copies.double().log(), _layout=layout)
    long = block(repeated, repeated_ptr, _layout=layout)
    torch.testing.assert_close(short if name == "PMA" else short.repeat_interleave(copies, 0), long)


@BLOCKS
def test_order_of_cells_and_other_samples_do_not_matter(name, few):
    block, x = make(name, few=few), cells(9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    alone = block(x)
    torch.testing.assert_close(block(x[order]), alone if name == "PMA" else alone[order])
    crowd = block(torch.cat([1e3 * cells(2, seed=3), x, cells(1, seed=4)]), ptr_from_sizes([2, 9, 0, 1]))
    torch.testing.assert_close(crowd[1:2] if name == "PMA" else crowd[2:11], alone)


@BLOCKS
@pytest.mark.parametrize("layout", [None, *LAYOUTS])
def test_empty_samples_have_finite_values_and_gradients(name, few, layout):
    block = make(name, few=few)
    for counts in ([0, 3, 0], [0, 0]):
        x = cells(sum(counts)).requires_grad_()
        result = block(x, ptr_from_sizes(counts), _layout=layout)
        assert torch.isfinite(result).all()
        if name == "PMA":
            torch.testing.assert_close(result[0], result[-1])
            torch.testing.assert_close(result[0], slow_mab(block.mab, block.seeds, x[:0]))
        result.square().sum().backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in block.parameters())
        assert x.grad is None or torch.isfinite(x.grad).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "few"), [("SAB", 0), ("ISAB", 2), ("ISAB", 12), ("PMA", 2)])
def test_gradients(name, few, layout):
    block, ptr = make(name, few=few, dim=4), ptr_from_sizes([2, 0, 3])
    x, log_weight = cells(5, dim=4).requires_grad_(), torch.linspace(-1, 1, 5, dtype=torch.float64)
    weights = [p.detach().clone().requires_grad_() for p in block.parameters()]
    names = [n for n, _ in block.named_parameters()]

    def run(values, *new):
        arguments = {"log_weight": log_weight, "_layout": layout}
        return torch.func.functional_call(block, dict(zip(names, new, strict=True)), (values, ptr), arguments)

    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=True)


@pytest.mark.parametrize("layout", [None, *LAYOUTS])
@BLOCKS
def test_bfloat16_autocast_stays_near_float32(name, few, layout):
    block, x = make(name, few=few).float(), cells(50).float()
    ptr = ptr_from_sizes([0, 20, 30])
    exact = block(x, ptr)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = block(x, ptr, _layout=layout)
    rough.float().sum().backward()
    assert torch.isfinite(rough).all()
    assert all(torch.isfinite(p.grad).all() for p in block.parameters() if p.grad is not None)
    assert (rough - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("name", ["ISAB", "PMA"])
def test_one_cell_beside_a_hundred_thousand(name):
    block, x = make(name).float(), cells(100_001).float()
    with torch.no_grad():
        both = block(x, ptr_from_sizes([100_000, 1]))
        alone = block(x[-1:])
        large = block.double()(x[:-1].double()).float()
    torch.testing.assert_close(both[-1], alone[-1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(both[:-1] if name == "ISAB" else both[:1], large, rtol=1e-4, atol=1e-4)


def test_attention_of_the_pooling():
    block, x, ptr = make("PMA", few=3), cells(7), ptr_from_sizes([5, 0, 2])
    copies = torch.tensor([1.0, 2, 1, 3, 1, 1, 4], dtype=torch.float64)
    weights = block.get_attention(x, ptr, log_weight=copies.log())
    assert weights.shape == (7, 2, 3)
    for start, end in [(0, 5), (5, 7)]:
        torch.testing.assert_close(weights[start:end].sum(0), torch.ones(2, 3, dtype=torch.float64))
    q, k = block.seeds @ block.mab.attention.query.weight.T, x @ block.mab.attention.key.weight.T
    raw = copies[:5] * torch.exp(k[:5, 4:] @ q[1, 4:] / 2)
    torch.testing.assert_close(weights[:5, 1, 1], raw / raw.sum())
    torch.testing.assert_close(block.get_attention(x[:5], log_weight=copies[:5].log()), weights[:5])


def test_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    block, x = ISAB(DIM, 2, n_inducing=4, dropout_rate=0.5), torch.randn(20, DIM)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_messages():
    with pytest.raises(ValueError, match=r"`n_heads` \(3\) must divide the width \(8\)"):
        SAB(8, 3)
    block, x = PMA(8, 2), torch.randn(4, 8)
    with pytest.raises(ValueError, match=r"found shape \(4, 8\) with ptr=None, is_real=given"):
        block(x, is_real=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"one entry per key, shape \(4,\), found \(3,\)"):
        block(x, log_weight=torch.zeros(3))
    with pytest.raises(ValueError, match=r"number of cells \(4\), but it runs from 0 to 3"):
        block(x, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="found 1 in x and 2 in y"):
        MAB(8, 2)(x, x, y_ptr=ptr_from_sizes([2, 2]))
