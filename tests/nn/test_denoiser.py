"""The denoiser against a slow transcription that repeats time and sample for every cell."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from scset_tools.nn import Denoiser, sinusoidal_embedding


def make(**arguments):
    torch.manual_seed(0)
    network = Denoiser(3, 4, **({"n_hidden": 8, "n_blocks": 2, "n_time": 6} | arguments)).double()
    with torch.no_grad():
        for p in network.parameters():
            p += 0.2 * torch.randn_like(p)
    return network.eval()


def by_hand(network, x, t, z):
    """One cell at a time; the sum of both embeddings goes through one linear map."""
    out = []
    for cell, time, sample in zip(x, t, z, strict=True):
        condition = network.time(sinusoidal_embedding(time[None], network.n_time)) + network.sample(sample[None])
        steer = network.modulation(condition)[0].split(network.n_hidden)
        h = network.input(cell)
        for i, block in enumerate(network.blocks):
            shift, scale, gate = steer[3 * i : 3 * i + 3]
            h = h + gate * block((1 + scale) * F.layer_norm(h, h.shape) + shift)
        shift, scale = steer[-2:]
        out.append(network.output((1 + scale) * F.layer_norm(h, h.shape) + shift))
    return torch.stack(out)


@pytest.mark.parametrize("n_rows", [[4, 4], [5, 3], [0, 8]], ids=str)
def test_cells_of_their_own_time(n_rows):
    network = make()
    x, z, t = torch.randn(8, 3).double(), torch.randn(2, 4).double(), torch.tensor([1, 9, 9, 500, 1, 7, 1, 9])
    want = by_hand(network, x, t.double(), z.repeat_interleave(torch.tensor(n_rows), 0))
    times, which = t.unique(return_inverse=True)
    got = network(x, network.of_time(times.double()), network.of_sample(z), which_time=which, n_rows=n_rows)
    torch.testing.assert_close(got, want)
    # the row of each cell, in any order, says the same
    order = torch.tensor([5, 0, 7, 2, 1, 6, 3, 4])
    of_cell = torch.repeat_interleave(torch.arange(2), torch.tensor(n_rows))[order]
    got = network(
        x[order], network.of_time(times.double()), network.of_sample(z), which_time=which[order], which_sample=of_cell
    )
    torch.testing.assert_close(got, want[order])


def test_cells_of_one_time():
    network, x, z = make(), torch.randn(6, 3).double(), torch.randn(3, 4).double()
    t = torch.full((6,), 40.0).double()
    got = network(x, network.of_time(t[:1]), network.of_sample(z))
    torch.testing.assert_close(got, by_hand(network, x, t, z.repeat_interleave(2, 0)))


def test_gradients_reach_time_and_sample():
    network, x, z = make(), torch.randn(6, 3).double(), torch.randn(3, 4).double().requires_grad_()
    network(
        x, network.of_time(torch.arange(6.0).double()), network.of_sample(z), which_time=torch.arange(6)
    ).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
    assert (z.grad.abs().sum(1) > 0).all()


def test_no_cells():
    network = make()
    z = torch.randn(2, 4).double()
    assert network(
        torch.zeros(0, 3).double(), network.of_time(torch.zeros(1).double()), network.of_sample(z)
    ).shape == (0, 3)


def test_a_new_network_predicts_no_noise():
    torch.manual_seed(0)
    network = Denoiser(3, 4, n_hidden=8)
    out = network(torch.randn(2, 3), network.of_time(torch.ones(1)), network.of_sample(torch.randn(2, 4)))
    torch.testing.assert_close(out, torch.zeros(2, 3))


def test_sinusoidal_embedding_is_that_of_the_transformer():
    got = sinusoidal_embedding(torch.tensor([0.0, 3.0]).double(), 6)
    frequencies = [10_000 ** (-k / 3) for k in range(3)]
    want = [[math.cos(t * f) for f in frequencies] + [math.sin(t * f) for f in frequencies] for t in (0, 3)]
    torch.testing.assert_close(got, torch.tensor(want).double())
    with pytest.raises(ValueError, match="`dim` must be even, found 5"):
        sinusoidal_embedding(torch.zeros(1), 5)


@pytest.mark.parametrize("shapes", [[(3, 4)] * 3, [(3, 4), (1, 4), (3, 4)]], ids=["equal", "broadcast"])
def test_sum_with_a_product_has_the_gradients_of_its_parts(shapes):
    from scset_tools.nn._denoiser import _add_product

    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(s, dtype=torch.float64, generator=generator, requires_grad=True) for s in shapes)
    torch.testing.assert_close(_add_product(a, b, c), a + b * c)
    assert torch.autograd.gradcheck(_add_product, (a, b, c))
