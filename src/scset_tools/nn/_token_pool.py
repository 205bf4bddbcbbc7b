"""What share of a sample's cells lies near each prototype, and how they lie there: a tokenizer that learns online."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["TokenPool"]


class TokenPool(nn.Module):
    r"""Pool the cells of a sample by prototypes of cells, and map the result to a vector.

    A cell x belongs to prototype :math:`c_k` with weight :math:`a_k(x) = \mathrm{softmax}_k(-s \lVert x - c_k \rVert^2 / v)`, where
    v is the mean squared distance of a cell to its nearest prototype. A sample of n cells has the features

    .. math:: \sqrt{\tfrac{1}{n} \sum_i a_k(x_i)}, \qquad \tfrac{1}{n} \sum_i a_k(x_i) (x_i - c_k)

    (the share of each kind of cell, and the shift of its cells: the square root makes the variance of a share independent of its
    size, and the second is the gradient of a mixture of Gaussians with respect to its means, a Fisher vector). They are
    standardised over samples, so that a rare kind counts as much as a common one, and mapped to the vector by a random projection,
    which keeps distances and is not learned.

    Attention pools one weighted mean over all kinds of cells, in which a shift of one kind and the opposite shift of another
    cancel. Here they stay apart. Prototypes, v and the standardisation are running means over the batches of :meth:`update`, not
    learned by gradient; before the first one the prototypes are random.

    Parameters
    ----------
    n_input
        Number of features of a cell.
    n_tokens
        Number of prototypes.
    n_latent
        Length of the vector.
    sharpness
        s; large values let a cell belong to its nearest prototype alone.
    decay
        Share of the running means that stays in an update.

    Raises
    ------
    ValueError
        If ``sharpness`` is not positive or ``decay`` is outside [0, 1).
    """

    prototypes: Tensor
    spread: Tensor
    share: Tensor
    location: Tensor
    variance: Tensor
    n_updates: Tensor

    def __init__(
        self, n_input: int, n_tokens: int, n_latent: int, *, sharpness: float = 2.0, decay: float = 0.95
    ) -> None:
        super().__init__()
        if sharpness <= 0:
            raise ValueError(f"sharpness must be above 0, got {sharpness}.")
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}.")
        self.sharpness, self.decay = sharpness, decay
        n_features = n_tokens * (1 + n_input)
        self.project = nn.Linear(n_features, n_latent, bias=False)
        nn.init.normal_(self.project.weight, std=n_features**-0.5).requires_grad_(requires_grad=False)
        self.register_buffer("prototypes", torch.randn(n_tokens, n_input))
        self.register_buffer("spread", torch.tensor(float(n_input)))
        self.register_buffer("share", torch.full((n_tokens,), 1 / n_tokens))
        self.register_buffer("location", torch.zeros(n_features))
        self.register_buffer("variance", torch.ones(n_features))
        self.register_buffer("n_updates", torch.tensor(0))

    def assign(self, x: Tensor) -> Tensor:
        """Weight with which each cell belongs to each prototype, (cells, n_tokens); rows sum to one.

        Parameters
        ----------
        x
            Cells, (cells, n_input).
        """
        distance = _squared_distances(x, self.prototypes.to(x.dtype))
        return torch.softmax(-self.sharpness / self.spread.to(x.dtype) * distance, dim=1)

    def sums(self, x: Tensor, ptr: Tensor) -> Tensor:
        """Sums over the cells of each sample, which add up over pieces of it, (samples, n_tokens, 1 + n_input).

        Parameters
        ----------
        x
            Cells, (cells, n_input).
        ptr
            Boundaries of the samples, (samples + 1,).
        """
        n_cells = ptr.diff().tolist()
        # one product per sample: all weighted cells of a batch would take n_tokens times its memory
        pairs = zip(self.assign(x).split(n_cells), x.split(n_cells), strict=True)
        n, total = zip(*[(weight.sum(0), weight.T @ cells) for weight, cells in pairs], strict=True)
        share = torch.stack(n)[..., None]
        return torch.cat([share, torch.stack(total) - share * self.prototypes.to(x.dtype)], dim=2)

    def features(self, sums: Tensor, n_cells: Tensor) -> Tensor:
        """Square roots of shares, and shifts, of each sample, (samples, n_tokens * (1 + n_input)).

        Parameters
        ----------
        sums
            From :meth:`sums`.
        n_cells
            Number of cells of each sample, (samples,).
        """
        mean = sums / n_cells.clamp_min(1).to(sums.dtype)[:, None, None]
        # the gradient of a root is infinite at 0
        root = mean[..., 0].clamp_min(1e-6).sqrt()
        return torch.cat([root, mean[..., 1:].flatten(1)], dim=1)

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
        scale = self.variance.to(features.dtype).add(1e-8).rsqrt()
        return self.project((features - self.location.to(features.dtype)) * scale)

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

    @torch.no_grad()
    def start(self, prototypes: Tensor) -> None:
        """Set the prototypes, before the first update.

        Parameters
        ----------
        prototypes
            (n_tokens, n_input).
        """
        self.prototypes.copy_(prototypes)

    @torch.no_grad()
    def update(self, x: Tensor, ptr: Tensor) -> None:
        """Move the running means towards those of a batch: prototypes to the cells that belong to them (online k-means).

        Parameters
        ----------
        x
            Cells, (cells, n_input).
        ptr
            Boundaries of the samples, (samples + 1,).
        """
        if not len(x):
            return
        x = x.to(self.prototypes.dtype)
        is_first = self.n_updates == 0
        rate = torch.where(is_first, 1.0, 1 - self.decay).to(x)
        distance, nearest = _squared_distances(x, self.prototypes).min(dim=1)
        self.spread.lerp_(distance.mean().clamp_min(1e-6), rate)
        # the nearest alone: soft weights would draw all prototypes towards the mean of all cells, step by step
        weight = torch.nn.functional.one_hot(nearest, len(self.prototypes)).to(x.dtype)
        share = weight.mean(dim=0)
        mean = (weight.T @ x) / len(x) / share.clamp_min(1e-12)[:, None]
        # a prototype moves as far as its share of the new cells among all that it stands for
        step = rate * share / ((1 - rate) * self.share + rate * share).clamp_min(1e-12)
        self.prototypes.add_(step[:, None] * (mean - self.prototypes))
        self.share.lerp_(share, rate)
        features = self.features(self.sums(x, ptr), ptr.diff())
        if len(features) > 1:
            self.location.lerp_(features.mean(dim=0), rate)
            self.variance.lerp_((features - self.location).square().mean(dim=0), rate)
        self.n_updates += 1

    def extra_repr(self) -> str:
        """Sizes, as torch prints them."""
        n_tokens, n_input = self.prototypes.shape
        return f"n_input={n_input}, n_tokens={n_tokens}, sharpness={self.sharpness}"


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances, (rows of x, rows of y)."""
    return (x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T).clamp_min(0)
