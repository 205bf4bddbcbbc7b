"""Decoder: from what the encoder saw of a cell to the values of its hidden genes."""

from __future__ import annotations

import torch
from torch import nn

from scset_tools.nn import LinearAttentionBlock

Entering = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""What enters of some genes (cells, n, n_input), their numbers (cells, n), and where the slot is real (cells, n)."""


class GeneDecoder(nn.Module):
    """Linear attention over all genes of a cell (xTrimoGene, scFoundation).

    A gene that the encoder saw enters as its output, a hidden one as the embedding for hidden values, every other one as the
    embedding of the value zero; each with its gene embedding.

    Parameters
    ----------
    n_input, n_hidden
        Widths of encoder and decoder.
    n_layers, n_heads, dim_head
        Number of blocks, heads, and width of a head (default: ``n_hidden / n_heads``).
    n_features
        Random features of the softmax kernel; None for ``elu(x) + 1``.
    n_norms
        Layer norms after the last block; scFoundation has two.

    Notes
    -----
    With one block of ``elu(x) + 1`` attention, an unexpressed gene enters with the same key and value in every cell. The sums
    over all genes are taken once per batch, and each cell replaces those of the genes it expresses or hides: the result of
    the full computation, at a cost that does not grow with the number of genes.
    """

    def __init__(
        self,
        n_input: int,
        n_hidden: int,
        *,
        n_layers: int,
        n_heads: int,
        dim_head: int | None,
        n_features: int | None,
        n_norms: int,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(n_input, n_hidden)
        self.layers = nn.ModuleList(
            LinearAttentionBlock(n_hidden, n_heads, dim_head=dim_head, n_features=n_features) for _ in range(n_layers)
        )
        self.norm = nn.Sequential(*(nn.LayerNorm(n_hidden) for _ in range(n_norms)))
        self.to_value = nn.Linear(n_hidden, 1)
        self.is_sparse = n_layers == 1 and n_features is None

    def forward(
        self,
        blank: torch.Tensor,
        seen: Entering,
        hidden: Entering,
    ) -> torch.Tensor:
        """Predicted values of the hidden genes, (cells, hidden).

        Parameters
        ----------
        blank
            What enters for a gene that is not expressed, (genes, n_input).
        seen, hidden
            The genes that the encoder saw, and those that were hidden from it.
        """
        x = self._sparse(blank, seen, hidden) if self.is_sparse else self._dense(blank, seen, hidden)
        return self.to_value(self.norm(x)).squeeze(-1)

    def _dense(self, blank: torch.Tensor, seen: Entering, hidden: Entering) -> torch.Tensor:
        n_genes = len(blank)
        gene = torch.cat([seen[1].masked_fill(~seen[2], n_genes), hidden[1].masked_fill(~hidden[2], n_genes)], 1)
        given = torch.cat([seen[0], hidden[0]], 1)
        # one row more takes what padding writes
        x = torch.cat([blank, blank[:1]]).expand(len(gene), -1, -1)
        x = x.scatter(1, gene.unsqueeze(-1).expand_as(given), given.to(x.dtype))[:, :n_genes]
        x = self.embed(x)
        for layer in self.layers[:-1]:
            x = layer(x)
        wanted = hidden[1].clamp_max(n_genes - 1).unsqueeze(-1).expand(-1, -1, x.shape[-1])
        return self.layers[-1](x, queries=x.gather(1, wanted))

    def _sparse(self, blank: torch.Tensor, seen: Entering, hidden: Entering) -> torch.Tensor:
        block = self.layers[0]
        attention = block.attention
        blank_k, blank_v = attention.key_value(block.norm_attention(self.embed(blank)).unsqueeze(0))
        context, total = attention.summarise(blank_k, blank_v)  # of all genes, were none expressed
        asking = self.embed(hidden[0])
        normed = block.norm_attention(asking)
        for given, gene, is_real in ((block.norm_attention(self.embed(seen[0])), *seen[1:]), (normed, *hidden[1:])):
            k, v = attention.key_value(given, is_real=is_real)
            # the same genes as they would enter if not expressed: from (1, heads, genes, d) to (cells, heads, n, d)
            known = gene.clamp_max(len(blank) - 1)
            old_k = blank_k[0][:, known].transpose(0, 1) * is_real[:, None, :, None]
            old_v = blank_v[0][:, known].transpose(0, 1)
            replaced = attention.summarise(torch.cat([k, -old_k], 2), torch.cat([v, old_v], 2))
            context, total = context + replaced[0], total + replaced[1]
        return block.finish(asking, attention.read(normed, context, total))
