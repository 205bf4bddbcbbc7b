"""Networks and losses for sets of vectors; torch alone."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from scset_tools.nn._attention import ISAB, MAB, PMA, SAB
from scset_tools.nn._attribution import (
    IntegratedGradients,
    average_gradient,
    completeness_error,
    gradient,
    gradient_x_input,
    integrated_gradients,
)
from scset_tools.nn._attribution_linear import LinearAttributions, attribute_through_linear
from scset_tools.nn._augment import hide_genes, log_normalize, thin_counts
from scset_tools.nn._auto_discretization import AutoDiscretization
from scset_tools.nn._denoiser import Denoiser, sinusoidal_embedding
from scset_tools.nn._diffusion import NoiseSchedule, ddim_steps, ddpm_steps
from scset_tools.nn._ema import ema_decay_at, ema_update
from scset_tools.nn._flow import flow_path, flow_steps
from scset_tools.nn._gene_masking import draw_without_replacement, n_hidden_genes
from scset_tools.nn._linear_attention import (
    LinearAttention,
    LinearAttentionBlock,
    elu_features,
    orthogonal_projection,
    softmax_features,
)
from scset_tools.nn._markers import MarkerEmbedding, drop_markers
from scset_tools.nn._masking import block_mask, n_hidden_cells, random_mask, rank_within_set
from scset_tools.nn._mlp import MLP, ProjectionHead
from scset_tools.nn._modalities import ModalityParts, Parts
from scset_tools.nn._pool import (
    FeatureSoftmaxPool,
    GatedAttentionPool,
    LinearAttentionPool,
    MeanPool,
    NonLinearAttentionPool,
    Pool,
    SumPool,
)
from scset_tools.nn._pool_streaming import stream_pool, stream_pool_weights
from scset_tools.nn._ragged import (
    from_padded,
    host_sizes,
    on_host,
    ptr_from_sizes,
    rows_where,
    sample_of_cell,
    scaled_ptr,
    segment_mean,
    segment_softmax,
    segment_sum,
    sizes,
    to_device,
    to_padded,
)
from scset_tools.nn._random import cell_normal, cell_uniform, content_hash, sample_uniform
from scset_tools.nn._set_encoder import SetEncoder
from scset_tools.nn._sparse_linear import CompressedRows, SparseLinear, sampled_product, sparse_product
from scset_tools.nn._streaming import stream_attention, stream_embed
from scset_tools.nn._token_pool import TokenPool
from scset_tools.nn._token_pool_open import MarginalTokenPool
from scset_tools.nn._transformer import TransformerBlock, TransformerEncoder, TransformerPool
from scset_tools.nn._views import farthest_point_view, random_view

__all__ = [
    "ISAB",
    "MAB",
    "MLP",
    "PMA",
    "SAB",
    "AutoDiscretization",
    "CompressedRows",
    "Denoiser",
    "FeatureSoftmaxPool",
    "GatedAttentionPool",
    "IntegratedGradients",
    "LinearAttention",
    "LinearAttentionBlock",
    "LinearAttentionPool",
    "LinearAttributions",
    "MarginalTokenPool",
    "MarkerEmbedding",
    "MeanPool",
    "ModalityParts",
    "NoiseSchedule",
    "NonLinearAttentionPool",
    "Parts",
    "Pool",
    "ProjectionHead",
    "SetEncoder",
    "SparseLinear",
    "SumPool",
    "TokenPool",
    "TransformerBlock",
    "TransformerEncoder",
    "TransformerPool",
    "attribute_through_linear",
    "average_gradient",
    "block_mask",
    "cell_normal",
    "cell_uniform",
    "completeness_error",
    "content_hash",
    "ddim_steps",
    "ddpm_steps",
    "draw_without_replacement",
    "drop_markers",
    "elu_features",
    "ema_decay_at",
    "ema_update",
    "farthest_point_view",
    "flow_path",
    "flow_steps",
    "from_padded",
    "gradient",
    "gradient_x_input",
    "hide_genes",
    "host_sizes",
    "integrated_gradients",
    "log_normalize",
    "n_hidden_cells",
    "n_hidden_genes",
    "on_host",
    "orthogonal_projection",
    "ptr_from_sizes",
    "random_mask",
    "random_view",
    "rank_within_set",
    "rows_where",
    "sample_of_cell",
    "sample_uniform",
    "sampled_product",
    "scaled_ptr",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "sinusoidal_embedding",
    "sizes",
    "softmax_features",
    "sparse_product",
    "stream_attention",
    "stream_embed",
    "stream_pool",
    "stream_pool_weights",
    "thin_counts",
    "to_device",
    "to_padded",
]


def __getattr__(name: str) -> ModuleType:
    """``nn.loss`` when it is first asked for: an exact transport loads more than torch."""
    if name != "loss":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return import_module("scset_tools.nn.loss")
