"""Kinds of cells where samples have different markers: the mixture of all of them, seen through those that are measured."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from scset_tools.nn._ragged import check_ptr
from scset_tools.nn._token_pool import RARE, TokenPool

__all__ = ["MarginalTokenPool"]


class MarginalTokenPool(TokenPool):
    r"""Shares and shifts of kinds of cells, as :class:`TokenPool`, for cells that miss markers.

    A Gaussian mixture over all markers says by itself what it expects of a part of them. A cell with the measured markers o is of kind k with

    .. math:: a_k(x_o) \propto w_k \exp(-\tfrac12 (x_o - c_{k,o})^T \Sigma_{oo}^{-1} (x_o - c_{k,o})),

    exactly the marginal of the mixture. The shift of a kind in the markers that are missing is what the mixture expects of it given the others,
    :math:`\Sigma_{\cdot o} \Sigma_{oo}^{-1} (x_o - c_{k,o})`: the step that expectation maximisation takes for missing values. With all markers it is
    :class:`TokenPool`.

    Parameters
    ----------
    n_input
        Number of markers.
    n_tokens, n_latent, relevance
        As for :class:`TokenPool`.
    n_groups
        Number of groups of sets that are not to be compared with each other, such as those of cells by two modalities: each is centred by
        itself, and scaled to the same variance.
    """

    covariance: Tensor
    size: Tensor

    def __init__(
        self, n_input: int, n_tokens: int, n_latent: int, *, relevance: float = 0.01, n_groups: int = 1
    ) -> None:
        super().__init__(n_input, n_tokens, n_latent, relevance=relevance)
        del self.whitener
        self.n_groups = n_groups
        if n_groups > 1:
            self.location = torch.zeros(n_groups, self.location.shape[0])
            self.register_buffer("size", torch.ones(n_groups))
        self.register_buffer("covariance", torch.eye(n_input) * (n_input / 4))

    def assign(self, x: Tensor) -> Tensor:
        """Probability of each cell to be of each kind, (cells, n_tokens); rows sum to one.

        Parameters
        ----------
        x
            Cells, NaN where a marker is not measured, (cells, n_input).
        """
        out = x.new_empty(len(x), len(self.prototypes))
        panels, which = torch.unique(~x.isnan(), dim=0, return_inverse=True)
        for i, (whitener, _) in enumerate(self._parts(panels, x.dtype)):
            own = (which == i).nonzero().squeeze(1)
            out = out.index_copy(0, own, self._assign(x[own], panels[i], whitener))
        return out

    def sums(self, x: Tensor, ptr: Tensor) -> Tensor:
        """Sums over the cells of each sample, whose cells all have the same markers, (samples, n_tokens, 1 + n_input).

        Parameters
        ----------
        x
            Cells, NaN where a marker is not measured, (cells, n_input).
        ptr
            Boundaries of the samples, (samples + 1,).
        """
        sets = x.split(check_ptr(x, ptr))
        measured = torch.stack([~cells[:1].isnan().any(0) for cells in sets])  # all of an empty sample
        panels, which = torch.unique(measured, dim=0, return_inverse=True)
        parts = self._parts(panels, x.dtype)
        prototypes = self.prototypes.to(x.dtype)
        out = []
        for cells, i in zip(sets, which.tolist(), strict=True):
            whitener, completion = parts[i]
            weight = self._assign(cells, panels[i], whitener)
            count = weight.sum(0)[:, None]
            total = weight.T @ torch.where(panels[i], cells, 0) - count * torch.where(panels[i], prototypes, 0)
            out.append(torch.cat([count, total @ completion], dim=1))
        return torch.stack(out)

    def embed(self, sums: Tensor, n_cells: Tensor, group: Tensor | None = None) -> Tensor:
        """The vector of each set from its sums, (sets, n_latent).

        Parameters
        ----------
        sums, n_cells
            As for :class:`TokenPool`.
        group
            Group of each set, (sets,), int64.
        """
        if self.n_groups == 1:
            return super().embed(sums, n_cells)
        features = self.features(sums, n_cells)
        centred = (features - self.location[group].to(features.dtype)) / self.size[group].to(features.dtype)[:, None]
        return centred @ self.project.to(features.dtype).T

    def forward(self, x: Tensor, ptr: Tensor, group: Tensor | None = None) -> Tensor:
        """Embed every set of a batch, (sets, n_latent).

        Parameters
        ----------
        x
            Cells, NaN where a marker is not measured, (cells, n_input).
        ptr
            Boundaries of the sets, (sets + 1,).
        group
            Group of each set, (sets,), int64.
        """
        return self.embed(self.sums(x, ptr), ptr.diff(), group)

    def embed_pieces(self, pieces: Iterable[Tensor], group: Tensor | None = None) -> Tensor:
        """The vector of one set whose cells come in pieces, (1, n_latent).

        Parameters
        ----------
        pieces
            As for :class:`TokenPool`.
        group
            Its group, (1,).
        """
        total, n_cells, dtype = self.total(pieces)
        return self.embed(total.to(dtype), torch.tensor([n_cells], device=total.device), group)

    @torch.no_grad()
    def calibrate(self, sums: Tensor, n_cells: Tensor, group: Tensor | None = None) -> None:
        """Find the map from features to vectors, as :class:`TokenPool` does; every group has the same variance.

        Parameters
        ----------
        sums, n_cells
            As for :class:`TokenPool`.
        group
            Group of each set, (sets,), int64. One without a set stays where all of them are.
        """
        if self.n_groups == 1:
            super().calibrate(sums, n_cells)
            return
        features = self.features(sums.double(), n_cells)
        n_tokens, n_input = self.prototypes.shape
        root = features[:, :n_tokens].mean(dim=0).sqrt()
        weight = torch.cat([1 / root.clamp_min(RARE), root.repeat_interleave(n_input)])
        x = torch.empty_like(features)
        for g in range(self.n_groups):
            own = group == g
            location = features[own if bool(own.any()) else slice(None)].mean(dim=0)
            x[own] = (features[own] - location) * weight
            size = float(x[own].square().sum(dim=1).mean().sqrt()) if bool(own.any()) else 1.0
            size = size if size > 0 else 1.0
            x[own] /= size
            self.location[g] = location
            self.size[g] = size
        self._find_map(x, weight)

    @torch.no_grad()
    def set_kinds(self, means: Tensor, covariance: Tensor, log_weight: Tensor) -> None:
        """Take the components of a mixture as the kinds of cells.

        Parameters
        ----------
        means
            Their means, (n_tokens, n_input).
        covariance
            Their covariance, (n_input, n_input), positive definite.
        log_weight
            Logarithms of their shares, (n_tokens,).
        """
        self.prototypes.copy_(means)
        self.covariance.copy_(covariance)
        self.log_weight.copy_(log_weight)

    def _assign(self, x: Tensor, is_measured: Tensor, whitener: Tensor) -> Tensor:
        difference = torch.where(is_measured, x, 0) @ whitener
        centres = torch.where(is_measured, self.prototypes.to(x.dtype), 0) @ whitener
        squared = difference.square().sum(1)[:, None] + centres.square().sum(1)[None] - 2 * difference @ centres.T
        return torch.softmax(self.log_weight.to(x.dtype) - 0.5 * squared.clamp_min(0), dim=1)

    @torch.no_grad()
    def _parts(self, panels: Tensor, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Whitener and completion for each panel (panels, n_input): with zeros for what is missing."""
        both = panels[:, :, None] & panels[:, None, :]
        covariance = self.covariance.double()
        one = torch.eye(covariance.shape[0], dtype=covariance.dtype, device=covariance.device)
        root = torch.linalg.cholesky(torch.where(both, covariance, one))
        inverse = torch.linalg.solve_triangular(root, one.expand_as(root), upper=False)  # L^-1
        completion = inverse.mT @ (inverse @ torch.where(panels[:, :, None], covariance, 0))
        return list(zip(inverse.mT.to(dtype).unbind(), completion.to(dtype).unbind(), strict=True))

    def extra_repr(self) -> str:
        """Sizes, as torch prints them."""
        return f"{super().extra_repr()}, marginal"
