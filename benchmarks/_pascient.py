"""The network of PaSCient that the benchmarks of step and attributions measure."""

from __future__ import annotations

import torch

from scset_tools.model.pascient._module import PaSCientModule
from scset_tools.model.supervise._targets import Target


def pascient_module(n_genes: int, width: int, *, classes: tuple[str, ...]) -> PaSCientModule:
    """A linear encoder of the given width and non-linear attention, from seed 0."""
    torch.manual_seed(0)
    made = PaSCientModule(
        n_genes,
        [Target("label", "class", "labels", classes)],
        n_hidden=width,
        n_latent=width // 2,
        n_encoder_layers=0,
        aggregator="attention",
        n_heads=4,
        n_layers=1,
        n_inducing=32,
        dropout_rate=0.0,
        init_scale=1.0,
        log_normalize=False,
        depth=None,
        gene_mask_rate=0.0,
        contrastive_weight=0.0,
        contrastive_temperature=0.1,
        n_contrastive_cells=1024,
    )
    # attention that is even, as at the start of training, would make the score nearly linear
    for layer in made.aggregator.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
    return made
