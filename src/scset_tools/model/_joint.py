"""Several modalities of a MuData as the cells of a model, and vectors of samples by each of them.

The model's AnnData holds the cells of all modalities (``"CD4@rna"``): what a cell lacks is NaN, which an open panel leaves out. It is
made when the MuData is set up, and again for each MuData that the model is asked about.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scset_tools import _checks, _keys
from scset_tools._joined import CELL_MODALITIES, JOINED, joined_cells
from scset_tools._samples import sample_codes
from scset_tools.data._panel import match_markers

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

UNEVEN = 10
"""One modality with so many times as many features as another is warned of."""

_JOINS: dict[int, dict[str, AnnData]] = {}
"""Joined cells by MuData and class of model, for as long as the MuData is there."""


def keep_join(mdata: MuData, model: str, cells: AnnData) -> None:
    """Remember the cells that a MuData was joined to when it was set up for a model."""
    if id(mdata) not in _JOINS:
        weakref.finalize(mdata, _JOINS.pop, id(mdata), None)
    _JOINS.setdefault(id(mdata), {})[model] = cells


def kept_join(mdata: MuData, model: str) -> AnnData | None:
    """What :func:`keep_join` remembers."""
    return _JOINS.get(id(mdata), {}).get(model)


class JoinedFrom:
    """The MuData of joined cells, for as long as somebody holds it: its names and columns are to be those that were joined.

    Parameters
    ----------
    mdata
        The MuData.
    modalities
        Those that were joined.
    keys
        Columns of ``obs`` that were read, of the MuData or of its modalities.
    """

    def __init__(self, mdata: MuData, modalities: Sequence[str], keys: Sequence[str]) -> None:
        self.mdata = weakref.ref(mdata)
        self._modalities, self._keys = list(modalities), list(keys)
        self._then = self._now(mdata)

    def __call__(self) -> None:
        """Raise ValueError if what the joined cells, which are a copy, were called is no longer what they are called."""
        mdata = self.mdata()
        if mdata is None:
            return
        now = self._now(mdata)
        for what, then in self._then.items():
            if now.get(what) is not then and not then.equals(now.get(what)):
                msg = (
                    f"mdata is no longer what it was when it was set up: {what} differ. Set it up again (setup_mudata) and build the model anew; "
                    "a trained model takes changed data as a copy: mdata.copy()."
                )
                raise ValueError(msg)

    def _now(self, mdata: MuData) -> dict[str, pd.Index]:
        """Names of cells and features, and columns as text, by what they are called in messages."""
        found: dict[str, pd.Index] = {}
        for name in self._modalities:
            if name in mdata.mod:
                found |= {f"mdata[{name!r}].{of}": getattr(mdata.mod[name], of) for of in ("obs_names", "var_names")}
        for where, obs in (
            ("mdata", mdata.obs),
            *((f"mdata[{m!r}]", mdata.mod[m].obs) for m in self._modalities if m in mdata.mod),
        ):
            columns = [key for key in self._keys if key in obs]
            found |= {f"{where}.obs[{key!r}]": pd.Index(obs[key].astype(object).astype(str)) for key in columns}
        return found


def recipe_of(
    modalities: Sequence[str],
    *,
    use_rep: str | Mapping[str, str] | None,
    layer: str | Mapping[str, str] | None,
    paired: bool | None,
    caller: str,
) -> dict[str, Any]:
    """How modalities are joined, in plain types, as it is saved with the model; checked as far as it can be without a sample."""
    names = [modalities] if isinstance(modalities, str) else [str(m) for m in modalities]
    if len(set(names)) < 2:
        msg = f"{caller} was given modalities={_checks.first(names)}: two at least. One alone is `modality`."
        raise ValueError(msg)
    for given in (use_rep, layer):
        named: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        for name, key in named.items():
            if not isinstance(key, str):
                msg = f"{caller} was given {key!r} for the modality {name!r}, which is no name."
                raise TypeError(msg)
    by_name = {
        which: dict.fromkeys(names, given) if isinstance(given, str) else dict(given or {})
        for which, given in (("use_rep", use_rep), ("layer", layer))
    }
    return {"modalities": names, "paired": paired, **by_name}


def join(
    mdata: MuData,
    sample_key: str,
    recipe: Mapping[str, Any],
    *,
    keys: Sequence[str],
    caller: str,
    is_new: bool,
    is_open: bool,
) -> AnnData:
    """The cells of a MuData as a recipe says; modalities that new data lack are left out where a model can do without."""
    names = list(recipe["modalities"])
    if not is_new and is_open:
        names = [name for name in names if name in mdata.mod]
        if not names:
            msg = f"The MuData has none of the modalities {_checks.first(recipe['modalities'], 20)} of the model, but {_checks.first(mdata.mod, 20)}."
            raise KeyError(msg)
    cells = joined_cells(
        mdata,
        sample_key,
        modalities=names,
        use_rep={k: v for k, v in recipe["use_rep"].items() if is_new or k in names},
        layer={k: v for k, v in recipe["layer"].items() if is_new or k in names},
        keep_incomplete=True,
        paired=recipe["paired"] if len(names) > 1 else None,
        keys=keys,
        caller=caller,
    )
    if not is_open:
        _require_complete(cells, names, caller=caller)
    if is_new:
        _warn_of_uneven(cells)
    return cells


def require_common(cells: AnnData, known: np.ndarray) -> None:
    """Raise where a modality of new data has no feature in common with those that the model knows of it."""
    for name in map(str, cells.uns[JOINED]["names"]):
        own = [str(v) for v in cells.var_names[(cells.var["modality"] == name).to_numpy()]]
        wanted = [str(k) for k in known if str(k).endswith(f"@{name}")]
        if (match_markers(np.asarray(wanted), np.asarray(own)) < 0).all():
            has, knows = ([f.removesuffix(f"@{name}") for f in features] for features in (own, wanted))
            msg = (
                f"The modality {name!r} has no feature in common with the model: it has {_checks.first(has)}, the model knows "
                f"{_checks.first(knows)}. Rename its features, or leave the modality out of the MuData."
            )
            raise ValueError(msg)


def modality_vectors(model: Any, cells: AnnData, samples: pd.Index, **how: Any) -> dict[str, pd.DataFrame]:
    """Vectors of samples by one modality alone, NaN where a sample lacks it.

    Parameters
    ----------
    model
        A model that was set up on several modalities.
    cells
        Joined cells.
    samples
        Names of the samples.
    **how
        Arguments of ``get_sample_representation``.
    """
    out = {}
    sets = cells.obs[CELL_MODALITIES].astype(str).str.split("+", regex=False)
    key = model._sample_key
    codes, names = sample_codes(cells.obs[key], key)
    for name in map(str, cells.uns[JOINED]["names"]):
        has = sets.map(lambda own, name=name: name in own).to_numpy(dtype=bool)
        wanted = [s for s in names[np.unique(codes[has])] if s in samples]
        features = (cells.var["modality"] == name).to_numpy()
        rows = has & np.isin(names[codes], wanted)
        if not wanted:
            continue
        part = cells[rows][:, features].copy()
        part.uns = {k: v for k, v in part.uns.items() if not k.startswith("_scvi")}  # it is no copy of what was set up
        part.obs[CELL_MODALITIES] = name
        out[name] = model.get_sample_representation(part, **how).reindex(samples)
    return out


def sample_mudata(samples: AnnData, name: str) -> MuData:
    """The vectors of samples by several modalities as a MuData; see ``to_sample_mudata`` of the models.

    Parameters
    ----------
    samples
        From ``to_sample_adata``.
    name
        Prefix of what is in it.
    """
    import mudata
    from anndata import AnnData

    start = f"{_keys.representation(name)}_"
    by = {key.removeprefix(start): x for key, x in samples.obsm.items() if key.startswith(start)}
    if not by:
        msg = "These samples have no vectors by modality: to_sample_mudata is for a model of several modalities that reads an open panel."
        raise ValueError(msg)
    parts = {"joint": samples}
    for modality, x in by.items():
        has = np.isfinite(x).all(axis=1)
        var = pd.DataFrame(index=[f"{modality}:{v}" for v in samples.var_names])
        parts[modality] = AnnData(x[has], obs=samples.obs[has].copy(), var=var)  # read alone, it has its labels
    out = mudata.MuData(parts)
    out.obs = samples.obs.loc[out.obs_names].copy()
    return out


def _require_complete(cells: AnnData, names: Sequence[str], *, caller: str) -> None:
    whole = (cells.obs[CELL_MODALITIES].astype(str) == "+".join(names)).to_numpy()
    if not whole.all():
        msg = (
            f"{(~whole).sum()} of {len(whole)} cells lack one of the modalities {_checks.first(names, 20)} (first: "
            f"{_checks.first(cells.obs_names[~whole])}), and {caller.split('.', maxsplit=1)[0]} reads a fixed panel. Keep the complete cells, "
            "pp.join_modalities(mdata, sample_key) and setup_anndata; or take MAESTRO or ScSet, which mask what is missing."
        )
        raise ValueError(msg)


def _warn_of_uneven(cells: AnnData) -> None:
    n = cells.var["modality"].value_counts()
    if n.max() > UNEVEN * n.min():
        warnings.warn(
            f"{n.idxmax()!r} has {n.max()} features and {n.idxmin()!r} {n.min()}. Each is standardised, so that a modality weighs by their "
            f"number: choose features, or take components (sc.pp.pca(mdata[{n.idxmax()!r}]) and use_rep={{{n.idxmax()!r}: 'X_pca'}}).",
            UserWarning,
            stacklevel=4,
        )
