"""From the vector of a sample back to its cells (MAESTRO eq. 9)."""

from __future__ import annotations

import torch
from torch import nn

from scset_tools.model.maestro._views import LOG_OF_NONE
from scset_tools.nn import ISAB, MAB, SAB, ptr_from_sizes

DECODERS = ("sab", "isab")


class SetDecoder(nn.Module):
    """Unpool a sample's vector to cells, let the cells attend to each other, map them to features.

    The paper copies the vector to every visible slot, puts a token into every hidden slot, and pools these slots with one
    learned seed per cell to decode (eq. 9). The slots hold only two distinct rows, so here each is given once, with the
    logarithm of its number as weight in the attention: the same result, at a cost that does not grow with the slots.

    Parameters
    ----------
    n_latent
        Length of the vector of a sample.
    n_hidden
        Width of the attention blocks.
    n_output
        Number of features of a cell.
    n_cells
        Number of seeds: most cells that are decoded from one vector.
    n_heads, n_layers
        Attention heads, and self-attention blocks after the unpooling.
    kind
        ``"sab"``: cells attend to each other directly (the paper; quadratic in the number of decoded cells).
        ``"isab"``: through ``n_inducing`` points (linear).
    n_inducing
        Inducing points of ``"isab"``.
    dropout_rate
        Dropout inside the attention blocks.
    """

    def __init__(
        self,
        n_latent: int,
        n_hidden: int,
        n_output: int,
        *,
        n_cells: int,
        n_heads: int = 4,
        n_layers: int = 3,
        kind: str = "sab",
        n_inducing: int = 32,
        dropout_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.seeds = nn.Parameter(torch.randn(n_cells, n_hidden))
        self.hidden_token = nn.Parameter(torch.randn(n_latent))
        self.lift = nn.Linear(n_latent, n_hidden)
        self.unpool = MAB(n_hidden, n_heads, dropout_rate=dropout_rate)
        self.layers = nn.ModuleList(
            SAB(n_hidden, n_heads, dropout_rate=dropout_rate)
            if kind == "sab"
            else ISAB(n_hidden, n_heads, n_inducing=n_inducing, dropout_rate=dropout_rate)
            for _ in range(n_layers)
        )
        self.output = nn.Linear(n_hidden, n_output)

    def forward(
        self,
        z: torch.Tensor,
        slot: torch.Tensor,
        ptr: torch.Tensor,
        *,
        n_visible: torch.Tensor,
        n_hidden: torch.Tensor,
    ) -> torch.Tensor:
        """Decode the cells of the given slots.

        Parameters
        ----------
        z
            One vector per view, (views, n_latent).
        slot
            Which seed decodes each cell: its position in its view, (decoded cells,).
        ptr
            Where the decoded cells of each view begin and end, (views + 1,).
        n_visible, n_hidden
            Number of visible and of hidden slots of each view, (views,).

        Returns
        -------
        Features of the decoded cells, (decoded cells, n_output).
        """
        n_views = len(z)
        slots = torch.stack([z, self.hidden_token.to(z.dtype).expand_as(z)], dim=1)  # (views, 2, n_latent)
        log_weight = torch.stack([n_visible, n_hidden], dim=1).to(z.dtype).log().clamp_min(LOG_OF_NONE)  # (views, 2)
        two_each = ptr_from_sizes([2] * n_views, device=z.device)
        cells = self.unpool(
            self.seeds[slot],
            self.lift(slots).flatten(0, 1),
            ptr,
            y_ptr=two_each,
            log_weight=log_weight.flatten(),
        )
        for layer in self.layers:
            cells = layer(cells, ptr)
        return self.output(cells)
