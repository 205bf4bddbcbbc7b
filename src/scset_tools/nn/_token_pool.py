"""What share of a sample's cells is of each kind, and how these cells lie: the kinds are those of a mixture of Gaussians."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from scset_tools.nn._ragged import check_ptr

__all__ = ["TokenPool"]

MAX_COMPONENTS = 64
"""Most principal components in which kinds of cells are told apart: a covariance of thousands of features is not to be had."""
RARE = 0.05
"""Square root of the share below which a kind counts no more for being rare."""


class TokenPool(nn.Module):
    r"""Pool the cells of a sample by kind, and map the result to a vector.

    The kinds are the components of a Gaussian mixture of all cells with shares :math:`w_k`, means :math:`c_k` and one covariance
    :math:`\Sigma`. A cell x is of kind k with probability
    :math:`a_k(x) \propto w_k \exp(-\tfrac12 \lVert \Sigma^{-1/2} (x - c_k) \rVert^2)`. A sample of n cells has the features

    .. math:: p_k = \tfrac1n \sum_i a_k(x_i), \qquad s_k = \frac{\sum_i a_k(x_i) (x_i - c_k)}{\sum_i a_k(x_i) + \rho n}

    (the share of each kind, and the shift of its cells, drawn towards zero where a kind has few of them: the adaptation of a
    mixture's means to a sample by maximum a posteriori with relevance factor :math:`\rho n`; Reynolds et al. 2000). They enter as
    :math:`p_k / \sqrt{w_k}` and :math:`\sqrt{w_k}\, s_k`, in which distances approximate the divergence between the mixtures of
    two samples (Campbell et al. 2006), and are mapped to the vector along their principal components, by an isometry.

    Attention pools one weighted mean over all kinds of cells, in which a shift of one kind and the opposite shift of another
    cancel. Here they stay apart. Nothing is learned by gradient: :meth:`set_kinds` takes the components of a mixture, :meth:`calibrate` finds
    the map. Before, the kinds are random.

    Parameters
    ----------
    n_input
        Number of features of a cell.
    n_tokens
        Number of kinds.
    n_latent
        Length of the vector.
    relevance
        :math:`\rho`, as a share of a sample's cells.

    Raises
    ------
    ValueError
        If ``relevance`` is not positive.
    """

    prototypes: Tensor
    whitener: Tensor
    log_weight: Tensor
    location: Tensor
    project: Tensor
    rotation: Tensor
    is_fitted: Tensor

    def __init__(self, n_input: int, n_tokens: int, n_latent: int, *, relevance: float = 0.01) -> None:
        super().__init__()
        if relevance <= 0:
            raise ValueError(f"relevance must be above 0, got {relevance}.")
        self.relevance = relevance
        n_features, n_components = n_tokens * (1 + n_input), min(n_input, MAX_COMPONENTS)
        self.register_buffer("prototypes", torch.randn(n_tokens, n_input))
        # so that random prototypes share the cells among them, instead of one taking each
        self.register_buffer("whitener", 2 * n_input**-0.5 * _orthogonal(n_input, n_components))
        self.register_buffer("log_weight", torch.full((n_tokens,), -math.log(max(1, n_tokens))))
        self.register_buffer("location", torch.zeros(n_features))
        self.register_buffer("project", _orthogonal(n_latent, n_features))
        self.register_buffer("rotation", _orthogonal(n_latent, n_latent))
        self.register_buffer("is_fitted", torch.tensor(False))  # noqa: FBT003

    def assign(self, x: Tensor) -> Tensor:
        """Probability of each cell to be of each kind, (cells, n_tokens); rows sum to one.

        Parameters
        ----------
        x
            Cells, (cells, n_input).
        """
        whitener = self.whitener.to(x.dtype)
        distance = _squared_distances(x @ whitener, self.prototypes.to(x.dtype) @ whitener)
        return torch.softmax(self.log_weight.to(x.dtype) - 0.5 * distance, dim=1)

    def sums(self, x: Tensor, ptr: Tensor) -> Tensor:
        """Sums over the cells of each sample, which add up over pieces of it, (samples, n_tokens, 1 + n_input).

        Parameters
        ----------
        x
            Cells, (cells, n_input).
        ptr
            Boundaries of the samples, (samples + 1,).
        """
        n_cells = check_ptr(x, ptr)
        # one product per sample: all weighted cells of a batch would take n_tokens times its memory
        pairs = zip(self.assign(x).split(n_cells), x.split(n_cells), strict=True)
        n, total = zip(*[(weight.sum(0), weight.T @ cells) for weight, cells in pairs], strict=True)
        share = torch.stack(n)[..., None]
        return torch.cat([share, torch.stack(total) - share * self.prototypes.to(x.dtype)], dim=2)

    def features(self, sums: Tensor, n_cells: Tensor) -> Tensor:
        """Shares, and shifts, of each sample, (samples, n_tokens * (1 + n_input)).

        Parameters
        ----------
        sums
            From :meth:`sums`.
        n_cells
            Number of cells of each sample, (samples,).
        """
        n = n_cells.clamp_min(1).to(sums.dtype)[:, None]
        count = sums[..., 0]
        shift = sums[..., 1:] / (count + self.relevance * n)[..., None]
        return torch.cat([count / n, shift.flatten(1)], dim=1)

    def embed(self, sums: Tensor, n_cells: Tensor) -> Tensor:
        """The vector of each sample from its sums, (samples, n_latent).

        Parameters
        ----------
        sums
            From :meth:`sums`, added up over the pieces of a sample.
        n_cells
            Number of cells of each sample, (samples,).
        """
        features = self.features(sums, n_cells)
        return (features - self.location.to(features.dtype)) @ self.project.to(features.dtype).T

    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        """Embed every sample of a batch.

        Parameters
        ----------
        x
            Cells, (cells, n_input).
        ptr
            Boundaries of the samples, (samples + 1,).

        Returns
        -------
        Tensor
            (samples, n_latent).
        """
        return self.embed(self.sums(x, ptr), ptr.diff())

    def embed_pieces(self, pieces: Iterable[Tensor]) -> Tensor:
        """The vector of one sample whose cells come in pieces, (1, n_latent).

        Parameters
        ----------
        pieces
            Cells, (cells of the piece, n_input) each; at least one piece. They add up in double precision.
        """
        total, n_cells, dtype = self.total(pieces)
        return self.embed(total.to(dtype), torch.tensor([n_cells], device=total.device))

    def total(self, pieces: Iterable[Tensor]) -> tuple[Tensor, int, torch.dtype]:
        """Sums of one sample whose cells come in pieces, in double precision, the number of cells and their type.

        Parameters
        ----------
        pieces
            Cells, (cells of the piece, n_input) each; at least one piece.
        """
        total, n_cells = torch.zeros((), dtype=torch.float64, device=self.location.device), 0
        for x in pieces:
            ptr = torch.tensor([0, len(x)], device=x.device)
            total, n_cells, dtype = total + self.sums(x, ptr).double(), n_cells + len(x), x.dtype
        return total, n_cells, dtype

    @torch.no_grad()
    def set_kinds(self, means: Tensor, whitener: Tensor, log_weight: Tensor) -> None:
        r"""Take the components of a mixture as the kinds of cells.

        Parameters
        ----------
        means
            Their means, (n_tokens, n_input).
        whitener
            :math:`\Sigma^{-1/2}`, in which differences count: (n_input, as many columns as the buffer ``whitener`` has).
        log_weight
            Logarithms of their shares, (n_tokens,).
        """
        self.prototypes.copy_(means)
        self.whitener.copy_(whitener)
        self.log_weight.copy_(log_weight)

    @torch.no_grad()
    def calibrate(self, sums: Tensor, n_cells: Tensor) -> None:
        """Find the map from features to vectors, which gives these samples unit variance on average over dimensions.

        It keeps all directions in which features vary if ``n_latent`` allows it, or the largest, and fills up with random ones:
        new samples may vary along directions that these did not.

        Parameters
        ----------
        sums
            From :meth:`sums`, of all samples.
        n_cells
            Number of cells of each sample, (samples,).
        """
        features = self.features(sums.double(), n_cells)
        n_tokens, n_input = self.prototypes.shape
        root = features[:, :n_tokens].mean(dim=0).sqrt()
        weight = torch.cat([1 / root.clamp_min(RARE), root.repeat_interleave(n_input)])
        location = features.mean(dim=0)
        self.location.copy_(location)
        self._find_map((features - location) * weight, weight)

    def _find_map(self, x: Tensor, weight: Tensor) -> None:
        """The map from centred and weighted features (samples, features) to vectors, for features that are not weighted yet."""
        n_latent = len(self.rotation)
        size = float(x.square().sum(dim=1).mean().sqrt())
        _, value, axes = torch.linalg.svd(x, full_matrices=False)
        axes = axes[value > 1e-9 * size * len(x) ** 0.5][:n_latent] if size > 0 else axes[:0]
        n_more = min(n_latent, x.shape[1]) - len(axes)
        if n_more > 0:
            seeded = torch.Generator().manual_seed(0)
            other = torch.randn(n_more, x.shape[1], generator=seeded, dtype=x.dtype).to(x.device)
            other = other - other @ axes.T @ axes
            axes = torch.cat([axes, torch.linalg.qr(other.T)[0].T])
        projected = self.rotation[:, : len(axes)].double() @ (axes * weight)
        self.project.copy_(projected * (n_latent**0.5 / size if size > 0 else 1.0))
        self.is_fitted.fill_(value=True)

    def extra_repr(self) -> str:
        """Sizes, as torch prints them."""
        n_tokens, n_input = self.prototypes.shape
        return f"n_input={n_input}, n_tokens={n_tokens}, relevance={self.relevance}"


def _orthogonal(n_rows: int, n_columns: int) -> Tensor:
    """A random matrix whose rows, or columns if these are fewer, are orthonormal."""
    out = torch.empty(n_rows, n_columns)
    return nn.init.orthogonal_(out) if out.numel() else out


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances, (rows of x, rows of y)."""
    return (x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T).clamp_min(0)
