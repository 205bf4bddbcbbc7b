"""The decoder with two weighted slots against the paper's decoder, which fills every slot."""

from __future__ import annotations

import pytest
import torch

from scset_tools.model.maestro._decoder import SetDecoder
from scset_tools.nn import ptr_from_sizes


def paper_decoder(
    decoder: SetDecoder, z: torch.Tensor, n_visible: int, n_hidden: int, slot: torch.Tensor
) -> torch.Tensor:
    """Eq. 9 as written: the vector in each visible slot, the token in each hidden one, one seed per decoded cell."""
    slots = torch.cat([z.expand(n_visible, -1), decoder.hidden_token.expand(n_hidden, -1)])
    cells = decoder.unpool(decoder.seeds[slot], decoder.lift(slots))
    for layer in decoder.layers:
        cells = layer(cells)
    return decoder.output(cells)


@pytest.mark.parametrize("kind", ["sab", "isab"])
def test_two_weighted_slots_equal_all_slots(kind):
    torch.manual_seed(0)
    decoder = SetDecoder(4, 16, 5, n_cells=30, n_heads=2, n_layers=2, kind=kind, n_inducing=3).double()
    z = torch.randn(3, 4, dtype=torch.float64)
    n_visible, n_hidden = [20, 9, 1], [10, 0, 1]
    slots = [torch.arange(20, 30), torch.zeros(0, dtype=torch.int64), torch.tensor([1])]
    ptr = ptr_from_sizes(torch.tensor([len(s) for s in slots]))
    decoded = decoder(z, torch.cat(slots), ptr, n_visible=torch.tensor(n_visible), n_hidden=torch.tensor(n_hidden))
    for v in range(3):
        if len(slots[v]):
            expected = paper_decoder(decoder, z[v], n_visible[v], n_hidden[v], slots[v])
            torch.testing.assert_close(decoded[ptr[v] : ptr[v + 1]], expected, rtol=1e-10, atol=1e-10)
    assert ptr.tolist() == [0, 10, 10, 11]


def test_gradients_stay_finite_where_nothing_is_hidden():
    torch.manual_seed(0)
    decoder = SetDecoder(4, 16, 5, n_cells=6, n_heads=2)
    z = torch.randn(1, 4, requires_grad=True)
    out = decoder(z, torch.arange(6), torch.tensor([0, 6]), n_visible=torch.tensor([6]), n_hidden=torch.tensor([0]))
    out.square().sum().backward()
    assert torch.isfinite(z.grad).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in decoder.parameters())


def test_ten_thousand_cells_are_decoded_in_one_go():
    torch.manual_seed(0)
    decoder = SetDecoder(4, 16, 5, n_cells=10_000, n_heads=2, n_layers=1)
    with torch.inference_mode():
        out = decoder(
            torch.randn(1, 4),
            torch.arange(10_000),
            torch.tensor([0, 10_000]),
            n_visible=torch.tensor([2_000]),
            n_hidden=torch.tensor([8_000]),
        )
    assert out.shape == (10_000, 5)
    assert torch.isfinite(out).all()
