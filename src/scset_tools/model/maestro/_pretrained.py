"""The weights of one MAESTRO as the start of another, on a cohort that may have other markers."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS, settings

from scset_tools import _checks
from scset_tools._samples import as_text
from scset_tools.data._panel import PanelReader, match_markers
from scset_tools.model._moments import batch_moments
from scset_tools.model._tokens import CELLS_OF_TOKENS, fit_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scset_tools.model.maestro._model import MAESTRO

NEW_MARKERS = ("ignore", "learn")
KINDS = ("keep", "refit")
APART, FAR_APART = 0.5, 2.0
"""Median over markers of the root of the squared shift of the mean, in standard deviations, and the squared logarithm of the ratio of spreads: from where on
values may be, and are, on another scale. Standardised cohorts are below 0.1 and four samples of one mostly below 0.5; cytometry that is transformed and
not standardised is at 0.6 to 1.9, raw values are far above."""

BY_MARKER = {
    "mean": 1,
    "scale": 1,
    "hidden_token": 0,
    "decoder.output.weight": 0,
    "decoder.output.bias": 0,
    "student.encoder.lift.names": 0,
    "teacher.encoder.lift.names": 0,
}
"""Weights that have an entry for each marker, and in which dimension."""


def start_from(
    cls: type[MAESTRO], adata: Any, source: MAESTRO, *, new_markers: str, kinds: str | None, freeze: Sequence[str]
) -> MAESTRO:
    """What :meth:`MAESTRO.from_pretrained` does, with a source that is loaded."""
    _checks.require_choice("new_markers", new_markers, NEW_MARKERS)
    if kinds is not None:
        _checks.require_choice("kinds", kinds, KINDS)
    manager = cls._get_most_recent_anndata_manager(adata, required=True)
    own, theirs = manager.registry["setup_args"], source.registry["setup_args"]
    panels = [str(arguments.get("panel", "fixed")) for arguments in (own, theirs)]
    if panels[0] != panels[1]:
        msg = f"adata was set up with panel={panels[0]!r}, but the pretrained {cls.__name__} reads panel={panels[1]!r}: set adata up with that."
        raise ValueError(msg)
    if own.get("batch_key") or theirs.get("batch_key"):
        msg = (
            "Weights with a location and scale for each batch (batch_key) fit no other cohort: set up without batch_key, after "
            "pp.standardize_markers(adata, batch_key), in training as here."
        )
        raise ValueError(msg)
    if own.get("covariate_keys") or theirs.get("covariate_keys"):
        whose = "adata was" if own.get("covariate_keys") else f"the pretrained {cls.__name__} was"
        msg = f"A decoder that is told covariates fits no other cohort, whose values are others, and {whose} set up with covariate_keys: leave them out."
        raise ValueError(msg)
    known = source.get_var_names()
    extra = _unknown(adata, known, is_open=panels[0] == "open")
    learned = extra if new_markers == "learn" else extra[:0]
    kinds = kinds or ("refit" if len(learned) else "keep")
    if len(learned) and kinds == "keep" and source.module.tokens is not None:
        msg = f"The pretrained kinds of cells do not know {len(learned)} new markers ({_checks.first(learned)}): kinds='refit', or new_markers='ignore'."
        raise ValueError(msg)
    registry = copy.deepcopy(manager.registry)
    state = registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
    state["column_names"], state["n_vars"] = np.concatenate([known, learned]), len(known) + len(learned)
    model = cls(None, registry, **copy.deepcopy(source.init_params_["non_kwargs"]))
    model._attach(adata)
    mean, scale = batch_moments(model, standardize=source.init_params_["non_kwargs"]["standardize"])
    if source.init_params_["non_kwargs"]["standardize"]:
        _require_scale(mean[0], scale[0], source, _measured(model.adata_manager.reader()))
    _take_weights(model.module, source.module, mean, scale)
    model.is_trained_, model.history_ = True, None
    if kinds == "refit" and model.module.tokens is not None:
        dataset = model._dataset_cls(model.adata_manager, n_cells=CELLS_OF_TOKENS, seed=settings.seed or 0)
        fit_tokens(
            model.module.tokens,
            dataset,
            np.arange(len(dataset)),
            read=model.module.standardize,
            parts=model.module.modality_parts,
        )
    model.freeze(freeze)
    return model


def _unknown(adata: Any, known: np.ndarray, *, is_open: bool) -> np.ndarray:
    """Names of the markers of an AnnData that are not among those of the model, sorted."""
    given = as_text(adata.var_names)
    if not is_open:
        return given[:0]
    columns = match_markers(known, given)
    used = columns[columns >= 0]
    if not len(used):
        msg = (
            f"adata has no marker in common with the pretrained model: it has {_checks.first(given)}; the model knows {len(known)}: "
            f"{_checks.first(known, 200)}. See pp.marker_names for what the names stand for, and rename those that differ."
        )
        raise ValueError(msg)
    return np.asarray(sorted(np.delete(given, used)), dtype=str)


def _measured(reader: Any) -> torch.Tensor | slice:
    """Which markers any sample has."""
    return torch.from_numpy(reader.panel.measured.any(axis=0)) if isinstance(reader, PanelReader) else slice(None)


def _require_scale(mean: torch.Tensor, scale: torch.Tensor, source: MAESTRO, measured: torch.Tensor | slice) -> None:
    """Raise, or warn, if the values of the markers that both know are on another scale than those of the pretraining."""
    their_mean, their_scale = (t[0].cpu() for t in (source.module.mean, source.module.scale))
    n = len(their_mean)
    shift, ratio = (mean[:n] - their_mean) / their_scale, scale[:n] / their_scale
    if isinstance(measured, torch.Tensor):
        shift, ratio = shift[measured[:n]], ratio[measured[:n]]
    apart = float((shift.square() + ratio.log().square()).sqrt().median())
    if apart <= APART:
        return
    is_sure = apart > FAR_APART
    msg = (
        f"The values of adata {'are not' if is_sure else 'may not be'} on the scale of the pretraining: over {len(shift)} markers that both have, means lie "
        f"{float(shift.abs().median()):.3g} standard deviations apart, and spreads are {float(ratio.median()):.3g} times as large (medians). "
        "Bring both to one scale: sst.pp.standardize_markers(adata), then set up with layer='standardized'."
    )
    if is_sure:
        raise ValueError(msg)
    warnings.warn(msg, UserWarning, stacklevel=4)


@torch.no_grad()
def _take_weights(module: Any, source: Any, mean: torch.Tensor, scale: torch.Tensor) -> None:
    """Weights of the source; what belongs to a further marker is drawn with the spread of the known ones."""
    state, theirs, n_known = module.state_dict(), source.state_dict(), source.mean.shape[1]
    is_wider = module.mean.shape[1] > n_known
    for name, value in theirs.items():
        if name not in BY_MARKER:
            # kinds of cells are of all markers together, and are fitted anew where there are more
            if not (is_wider and name.startswith("tokens.")):
                state[name] = value.clone()
            continue
        new = state[name].clone()
        part = new.narrow(BY_MARKER[name], 0, n_known)
        part.copy_(value)
        rest = new.narrow(BY_MARKER[name], n_known, new.shape[BY_MARKER[name]] - n_known)
        if name.endswith("lift.names"):
            rest.mul_(value.std())
            new *= (n_known / len(new)) ** 0.5  # the embedding of a cell grows with the root of the number of markers
        state[name] = new
    if is_wider and "teacher.encoder.lift.names" in state:
        state["teacher.encoder.lift.names"][n_known:] = state["student.encoder.lift.names"][n_known:]
    state["mean"][:, n_known:], state["scale"][:, n_known:] = mean[:, n_known:], scale[:, n_known:]
    module.load_state_dict(state)
