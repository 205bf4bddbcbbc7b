"""The weights of one model as the start of another, on a cohort that may have other markers and other labels."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from scvi import REGISTRY_KEYS, settings

from scset_tools import _checks
from scset_tools._modalities import is_mudata, modality_of
from scset_tools._samples import as_text
from scset_tools.data._panel import IS_PAIRED, MODALITY, PanelReader, match_markers
from scset_tools.model._fingerprint import digest
from scset_tools.model._moments import batch_moments
from scset_tools.model._setup_mudata import registered_modality
from scset_tools.model._tokens import CELLS_OF_TOKENS, fit_tokens
from scset_tools.model.explain._methods import ExplainedModel

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

NEW_MARKERS = ("ignore", "learn")
KINDS = ("keep", "refit")
APART, FAR_APART = 0.5, 2.0
"""Median over markers of the root of the squared shift of the mean, in standard deviations, and the squared logarithm of the ratio of spreads: from where on
values may be, and are, on another scale. Standardised cohorts are below 0.1 and four samples of one mostly below 0.5; cytometry that is transformed and
not standardised is at 0.6 to 1.9, raw values are far above."""


class StartedModel(ExplainedModel):
    """``from_pretrained`` of every model."""

    _by_marker: ClassVar[Mapping[str, int]] = {}
    """Weights that have an entry for each marker of an open panel, and in which dimension."""
    _averages: ClassVar[Mapping[str, str]] = {}
    """Weights that are moving averages of others, by the name of these."""

    @classmethod
    def from_pretrained(
        cls,
        adata: AnnData | MuData,
        source: SavedSource,
        *,
        new_markers: Literal["ignore", "learn"] = "ignore",
        kinds: Literal["keep", "refit"] | None = None,
        freeze: Sequence[str] = (),
    ) -> Self:
        """A model of a new cohort that starts from the weights of another: to embed, to train further, or to fine-tune.

        The source stays as it is. The new model has its arguments and all of its features; :meth:`train` goes on from there,
        :meth:`finetune` learns labels.

        Parameters
        ----------
        adata
            AnnData registered with :meth:`setup_anndata`, or MuData registered with :meth:`setup_mudata`, with the same ``panel`` and values on
            the same scale as those of the source. Components of ``use_rep`` must be the same ones: projected, or by the same model of cells.
        source
            A trained model of this class, the directory of a saved one (also one of :func:`scset_tools.model.to_hub`), or what
            :func:`scset_tools.pretrained.load` gives.
        new_markers
            What becomes of markers that the source does not know (open panels). ``"ignore"``: they are not read. ``"learn"``: each gets a random
            embedding to be trained, and the kinds of cells are fitted anew to the cells of ``adata``.
        kinds
            Whether the kinds of cells (:class:`~scset_tools.nn.TokenPool`) are those of the source, or are fitted to the cells of ``adata``, which
            needs no labels. Default: kept, unless markers are learned.
        freeze
            Parts that do not learn; see :meth:`freeze`.

        Raises
        ------
        TypeError
            If the source is neither a model of this class nor a directory.
        ValueError
            If no marker is in common, features of a fixed panel are missing, the set-ups differ, values are far from those of the source, it is not
            trained or of another class, or there is no such part.

        Warns
        -----
        UserWarning
            Which markers are not read; if values may be on another scale than those of the source; which labels of a model that learns them
            have no head yet.
        """
        if not isinstance(source, cls):
            if not isinstance(source, str | os.PathLike):
                msg = f"source must be a {cls.__name__} or the directory of a saved one, but is a {type(source).__name__}."
                raise TypeError(msg)
            source = cls.load(source, adata=False)
        if not source.is_trained:
            msg = f"The {cls.__name__} to start from is not trained."
            raise ValueError(msg)
        return start_from(cls, adata, source, new_markers=new_markers, kinds=kinds, freeze=freeze)

    @classmethod
    def _start_arguments(cls, source: Any, setup_args: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the constructor of a model that starts from ``source``, with the set-up of the new cohort."""
        del setup_args
        return copy.deepcopy(source.init_params_["non_kwargs"])

    def _require_start(self, source: Any, moments: Mapping[str, torch.Tensor]) -> None:
        """Raise, or warn, if the values of the new cohort are not those that the source was trained on."""
        if source.init_params_["non_kwargs"].get("standardize") and hasattr(source.module, "mean"):
            reader = self.adata_manager.reader()
            measured = (
                torch.from_numpy(reader.panel.measured.any(axis=0)) if isinstance(reader, PanelReader) else slice(None)
            )
            _require_scale(moments["mean"][0], moments["scale"][0], source.module, measured)

    def _own_moments(self, *, standardize: bool) -> dict[str, torch.Tensor]:
        """What the module holds of the values of each feature of the new cohort, by the name of the weights."""
        mean, scale = batch_moments(self, standardize=standardize)
        return {"mean": mean, "scale": scale}

    def _take_heads(self, source: Any) -> None:
        """Take what the source learned of labels that the new cohort has as well; for models that learn them in ``train``."""


SavedSource = StartedModel | str | os.PathLike


def start_from(cls: Any, adata: Any, source: Any, *, new_markers: str, kinds: str | None, freeze: Sequence[str]) -> Any:
    """What :meth:`StartedModel.from_pretrained` does, with a source that is loaded.

    Parameters
    ----------
    cls
        Class of the model.
    adata, source, new_markers, kinds, freeze
        As there.
    """
    _checks.require_choice("new_markers", new_markers, NEW_MARKERS)
    if kinds is not None:
        _checks.require_choice("kinds", kinds, KINDS)
    mdata, recipe = (adata, registered_modality(adata, cls.__name__)) if is_mudata(adata) else (None, None)
    if mdata is not None:
        adata = modality_of(mdata, recipe) if isinstance(recipe, str) else recipe[0]  # type: ignore[index]
    manager = cls._get_most_recent_anndata_manager(adata, required=True)
    own, theirs = manager.registry["setup_args"], source.registry["setup_args"]
    is_open = _require_alike(cls, own, theirs)
    tokens = getattr(source.module, "tokens", None)
    if new_markers == "learn" and not is_open:
        msg = f"new_markers='learn' is for open panels, but the pretrained {cls.__name__} reads panel='fixed': its features are those of every cohort."
        raise ValueError(msg)
    if kinds is not None and tokens is None:
        msg = f"kinds={kinds!r} says what becomes of kinds of cells, but the pretrained {cls.__name__} has none."
        raise ValueError(msg)
    if (MODALITY in _state(manager.registry)) != (MODALITY in _state(source.registry)):
        sides = ["adata", "the pretrained model"]
        several, one = sides if MODALITY in _state(manager.registry) else sides[::-1]
        msg = f"{several} has several modalities, but {one} was set up on one: set adata up as the pretrained model was, setup_mudata(modalities=...)."
        raise ValueError(msg)
    known = source.get_var_names()
    extra = _unknown(adata, known, is_open=is_open)
    learned = extra if new_markers == "learn" else extra[:0]
    kinds = kinds or ("refit" if len(learned) else "keep")
    if len(learned) and kinds == "keep" and tokens is not None:
        msg = f"The pretrained kinds of cells do not know {len(learned)} new markers ({_checks.first(learned)}): kinds='refit', or new_markers='ignore'."
        raise ValueError(msg)
    registry = copy.deepcopy(manager.registry)
    _set_features(registry, source.registry, known, learned)
    model = cls(None, registry, **cls._start_arguments(source, own))
    if mdata is not None:
        model.modality_, model.joined_ = (recipe, None) if isinstance(recipe, str) else (None, recipe[1])  # type: ignore[index]
    model._attach(adata)
    if mdata is not None:
        model._remember(mdata)
    moments = model._own_moments(standardize=bool(source.init_params_["non_kwargs"].get("standardize")))
    model._require_start(source, moments)
    _take_weights(model, source, moments)
    model._take_heads(source)
    model.is_trained_, model.history_ = True, None
    # what is new beside them may be random, and other in each process
    model.start_ = f"pretrained weights {digest(*(w.detach().double().cpu() for w in source.module.parameters()))}"
    if kinds == "refit" and tokens is not None:
        dataset = model._dataset_cls(model.adata_manager, n_cells=CELLS_OF_TOKENS, seed=settings.seed or 0)
        read = getattr(model.module, "read", model.module.standardize)
        fit_tokens(model.module.tokens, dataset, np.arange(len(dataset)), read=read, parts=model.module.modality_parts)
    model.freeze(freeze)
    return model


def _require_alike(cls: Any, own: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Raise unless a set-up fits that of the pretrained model; whether both read an open panel."""
    panels = [str(arguments.get("panel", "fixed")) for arguments in (own, theirs)]
    if panels[0] != panels[1]:
        msg = f"adata was set up with panel={panels[0]!r}, but the pretrained {cls.__name__} reads panel={panels[1]!r}: set adata up with that."
        raise ValueError(msg)
    if cls._by_marker and (own.get("batch_key") or theirs.get("batch_key")):
        msg = (
            "Weights with a location and scale for each batch (batch_key) fit no other cohort: set up without batch_key, after "
            "pp.standardize_markers(adata, batch_key), in training as here."
        )
        raise ValueError(msg)
    if own.get("covariate_keys") or theirs.get("covariate_keys"):
        whose = "adata was" if own.get("covariate_keys") else f"the pretrained {cls.__name__} was"
        msg = f"A decoder that is told covariates fits no other cohort, whose values are others, and {whose} set up with covariate_keys: leave them out."
        raise ValueError(msg)
    return panels[0] == "open"


def _state(registry: Mapping[str, Any]) -> Any:
    return registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]


def _set_features(registry: dict[str, Any], theirs: Mapping[str, Any], known: np.ndarray, learned: np.ndarray) -> None:
    """Write the features of the new model, and their modalities, into its registry."""
    own_state, their_state = (_state(r) for r in (registry, theirs))
    if MODALITY in own_state:
        of = dict(zip(as_text(own_state["column_names"]), as_text(own_state[MODALITY]), strict=True))
        names = [sorted(set(as_text(state[MODALITY]))) for state in (own_state, their_state)]
        further = sorted({of[name] for name in learned} - set(names[1]))
        if further:
            msg = f"The pretrained model knows the modalities {names[1]}, and not {further}: leave them out, or new_markers='ignore'."
            raise ValueError(msg)
        if bool(own_state[IS_PAIRED]) != bool(their_state[IS_PAIRED]):
            which = ["paired" if state[IS_PAIRED] else "unpaired" for state in (own_state, their_state)]
            msg = f"The modalities of adata are {which[0]}, but those of the pretrained model {which[1]}: a cell means another thing. See setup_mudata(paired=)."
            raise ValueError(msg)
        own_state[MODALITY] = np.concatenate([their_state[MODALITY], [of[name] for name in learned]]).astype(object)
    own_state["column_names"], own_state["n_vars"] = np.concatenate([known, learned]), len(known) + len(learned)


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


def _require_scale(mean: torch.Tensor, scale: torch.Tensor, module: Any, measured: torch.Tensor | slice) -> None:
    """Raise, or warn, if the values of the markers that both know are on another scale than those of the pretraining."""
    their_mean, their_scale = (t[0].cpu() for t in (module.mean, module.scale))
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
    warnings.warn(msg, UserWarning, stacklevel=5)


@torch.no_grad()
def _take_weights(model: Any, source: Any, moments: Mapping[str, torch.Tensor]) -> None:
    """Weights of the source; what belongs to a further marker is drawn with the spread of the known ones."""
    module, of_marker = model.module, model._by_marker
    state, theirs = module.state_dict(), source.module.state_dict()
    n_known, n_all = len(source.get_var_names()), len(model.get_var_names())
    is_wider = n_all > n_known
    for name, value in theirs.items():
        if name.startswith("heads."):
            continue  # of labels, which are those of the cohort
        if not is_wider or name not in of_marker:
            # kinds of cells are of all markers together, and are fitted anew where there are more
            if not (is_wider and name.startswith(("tokens.", "modality_parts."))):
                state[name] = value.clone()
            continue
        axis, new = of_marker[name], state[name].clone()
        new.narrow(axis, 0, n_known).copy_(value)
        rest = new.narrow(axis, n_known, n_all - n_known)
        if name in moments:
            rest.copy_(moments[name].narrow(axis, n_known, n_all - n_known))
        if name.endswith(".names"):
            rest.mul_(value.std())
            new *= (n_known / n_all) ** 0.5  # the embedding of a cell grows with the root of the number of markers
        state[name] = new
    for name, of in model._averages.items() if is_wider else ():
        if name in state:
            state[name][n_known:] = state[of][n_known:]
    module.load_state_dict(state)
