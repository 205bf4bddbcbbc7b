"""The fused way of attention on ragged sets, with a slow copy of its kernel: the same as the loop over sets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scset_tools.nn import ISAB, MAB, PMA, SAB, SetEncoder, TransformerBlock, TransformerPool, _varlen, ptr_from_sizes
from scset_tools.nn._packed import PackedSets

SIZES = [5, 17, 1, 17, 8]
CUDA = torch.device("cuda", 0)


class Kernel:
    """What ``torch.nn.attention.varlen.varlen_attn`` promises, one set after the other."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale):
        self.calls += 1
        assert q.shape[-1] == k.shape[-1] == v.shape[-1]
        assert q.shape[-1] % 8 == 0
        assert q.shape[-1] <= 192
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        n_q, n_k = cu_seq_q.diff().tolist(), cu_seq_k.diff().tolist()
        assert (max(n_q), max(n_k)) == (max_q, max_k)
        assert min(n_q + n_k) > 0
        out = []
        for a, b, c in zip(q.split(n_q), k.split(n_k), v.split(n_k), strict=True):
            heads = (t.transpose(0, 1).double() for t in (a, b, c))
            out.append(F.scaled_dot_product_attention(*heads, scale=scale).transpose(0, 1))
        return torch.cat(out).to(q.dtype)


@pytest.fixture
def kernel(monkeypatch):
    stand_in = Kernel()
    monkeypatch.setattr(_varlen, "kernel", lambda: stand_in)
    monkeypatch.setattr(_varlen, "_has_kernel", lambda _: True)
    monkeypatch.setattr(_varlen, "_HALF", (torch.float32, torch.float64, torch.bfloat16))
    return stand_in


def rows(sizes=SIZES, dim=16, seed=0):
    x = torch.randn(sum(sizes), dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.requires_grad_(), ptr_from_sizes(sizes)


BLOCKS = {
    "SAB": lambda: SAB(16, 2),
    "ISAB": lambda: ISAB(16, 2, n_inducing=3),
    "PMA": lambda: PMA(16, 2, n_seeds=2),
    "encoder": lambda: SetEncoder(16, 16, 4, n_layers=2, n_heads=2, n_inducing=3),
    "transformer": lambda: TransformerPool(16, 2),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_fused_equals_loop(kernel, name, weighted):
    torch.manual_seed(0)
    block = BLOCKS[name]().double()
    x, ptr = rows()
    more = {}
    if weighted:
        if name == "transformer":
            pytest.skip("its cells have no multiplicities")
        more["log_weight"] = torch.arange(1, len(x) + 1, dtype=torch.float64).log()
    results = []
    for layout in ("loop", "fused"):
        out = block(x, ptr, _layout=layout, **more)
        results.append((out, *torch.autograd.grad(out.square().sum(), [x, *block.parameters()])))
    assert kernel.calls > 0
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # a weight is summed in single precision


def test_sets_of_queries_and_keys_of_their_own(kernel):
    block = MAB(16, 2).double()
    (x, ptr), (y, y_ptr) = rows([3, 1, 4]), rows([2, 9, 5], seed=1)
    expected = block(x, y, ptr, y_ptr=y_ptr, _layout="loop")
    torch.testing.assert_close(block(x, y, ptr, y_ptr=y_ptr, _layout="fused"), expected)
    assert kernel.calls == 1


def test_weights_keep_their_digits_in_half_precision(kernel):
    """One number of bfloat16 would make 1,000 equal cells 1,004; three of them are exact."""
    q, k, v = (torch.randn(6, 2, 16, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(3))
    sets = PackedSets.of([4, 2], q.device, "fused")
    weight = torch.tensor([999.0, 3.0, 1.0, 7.0, 1.0, 0.0]).log()
    found = _varlen.attend_packed(q, k, v, q_sets=sets, k_sets=sets, log_weight=weight)
    whole = []
    for part, own in zip(torch.arange(6).split([4, 2]), weight.split([4, 2]), strict=True):
        heads = (t[part].transpose(0, 1).double() for t in (q, k, v))
        bias = own.double().clamp_min(-1e4)
        whole.append(F.scaled_dot_product_attention(*heads, attn_mask=bias.expand(2, len(part), -1)).transpose(0, 1))
    torch.testing.assert_close(found.double(), torch.cat(whole), rtol=5e-3, atol=5e-3)
    assert kernel.calls == 1


def test_empty_sets_take_no_part(kernel):
    block = SAB(16, 2).double()
    x, ptr = rows([3, 0, 5, 0])
    torch.testing.assert_close(block(x, ptr, _layout="fused"), block(x, ptr, _layout="loop"))
    assert kernel.calls == 1


def sets(sizes, layout="fused"):
    return PackedSets.of(sizes, torch.device("cpu"), layout)


def test_what_the_kernel_does_not_take_is_padded(monkeypatch):
    monkeypatch.setattr(_varlen, "_is_new_enough", lambda _: True)
    half = torch.bfloat16
    assert _varlen.can_fuse(half, sets([3, 4]), sets([2, 2], "uniform"), dim_head=64, device=CUDA)
    assert not _varlen.can_fuse(torch.float32, sets([3, 4]), sets([5, 1]), dim_head=64, device=CUDA)
    assert not _varlen.can_fuse(half, sets([3, 4]), sets([5, 1]), dim_head=12, device=CUDA)  # no multiple of 8
    assert not _varlen.can_fuse(half, sets([3, 4]), sets([5, 1]), dim_head=192, device=CUDA)  # too wide with a weight
    assert not _varlen.can_fuse(half, sets([3, 0]), sets([3, 2]), dim_head=64, device=CUDA)  # keys without queries
    assert _varlen.can_fuse(half, sets([3, 0]), sets([3, 0]), dim_head=64, device=CUDA)
    assert not _varlen.can_fuse(half, sets([0, 0]), sets([0, 0]), dim_head=64, device=CUDA)
    assert not _varlen.can_fuse(half, sets([3, 3], "uniform"), sets([3, 3], "uniform"), dim_head=64, device=CUDA)
    assert not _varlen.can_fuse(half, sets([3, 4]), sets([5, 1]), dim_head=64, device=torch.device("cpu"))
    monkeypatch.setattr(_varlen, "_is_new_enough", lambda _: False)
    assert not _varlen.can_fuse(half, sets([3, 4]), sets([5, 1]), dim_head=64, device=CUDA)


def test_the_layout_is_chosen_by_the_device():
    assert PackedSets.of([3, 4], CUDA).layout == "fused"
    assert PackedSets.of([3, 4], torch.device("cpu")).layout == "loop"
    assert PackedSets.of([4, 4], CUDA).layout == "uniform"


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("sizes", [SIZES, [4, 0, 2]], ids=["full", "empty"])
def test_without_a_kernel_the_rows_are_padded(name, sizes):
    torch.manual_seed(0)
    block = BLOCKS[name]().double()
    x, ptr = rows(sizes)
    torch.testing.assert_close(block(x, ptr, _layout="fused"), block(x, ptr, _layout="padded"), rtol=0, atol=0)
    torch.testing.assert_close(block(x, ptr, _layout="fused"), block(x, ptr, _layout="loop"))


def test_the_kernel_is_called_as_torch_wants_it():
    """Shapes alone: fake tensors on a GPU, torch's own operator."""
    torch_kernel = pytest.importorskip("torch.nn.attention.varlen").varlen_attn
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.no_grad():
        q, k, v = (torch.empty(n, 2, 16, dtype=torch.bfloat16, device=CUDA) for n in (7, 9, 9))
        cu = torch.empty(3, dtype=torch.int32, device=CUDA)
        assert torch_kernel(q, k, v, cu, cu, 5, 6, scale=0.25).shape == q.shape


def test_a_block_of_a_transformer_in_half_precision(kernel):
    block = TransformerBlock(16, 2)
    x, ptr = rows()
    x = x.detach().float()
    expected = block(x, ptr)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        padded_sets = PackedSets.of(SIZES, x.device, "fused")
        found = block._mix(x, padded_sets)
    assert kernel.calls == 1
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)
