"""What a report is asked for: checked before anything is computed, and told from every other request by a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from scset_tools import _checks, _events, _labels
from scset_tools._samples import sample_obs

if TYPE_CHECKING:
    from anndata import AnnData

MIN_SAMPLES = 3
"""Fewest samples: a spread, and a neighbour that is nearer than another, need three."""

PROBE: dict[str, Any] = {"class": "logistic", "ordinal": "ridge", "continuous": "ridge", "time_to_event": "cox"}
BRIEF_STEPS = 50
"""Steps of these models: from there on scores changed by at most 0.03 on two cohorts (benchmarks/RESULTS.md)."""
BRIEF_MODELS = ("maestro", "scset")
BRIEF_CELLS = 500
"""Cells of a sample that a step reads at most: what a step costs grows with them."""

METRIC = {"class": "balanced_accuracy", "ordinal": "r2", "continuous": "r2", "time_to_event": "concordance"}
"""What scores a label of each kind. Each has a level of chance: 1 / classes, 0, and 0.5."""


@dataclass(frozen=True)
class Request:
    """A checked request.

    Attributes
    ----------
    adata
        Cells.
    sample_key, label_key, event_key, groups_key, batch_key, cell_type_key, use_rep, layer
        As of :func:`scset_tools.report`.
    models
        Name in lower case and class of each model.
    profiles
        Name and unfitted profile of each baseline.
    build, train
        Arguments of the constructors and of ``train`` of all models.
    target
        Class that attributions explain, or None.
    cv, n_repeats, n_seeds, n_permutations, seed
        Numbers of folds, repeats, seeds and permuted labelings, and the seed.
    title
        Heading of the page.
    full_training
        Whether models are trained by their own defaults.
    """

    adata: AnnData
    sample_key: str
    label_key: str | None = None
    event_key: str | None = None
    groups_key: str | None = None
    batch_key: str | None = None
    cell_type_key: str | None = None
    use_rep: str | None = None
    layer: str | None = None
    models: Mapping[str, Any] = field(default_factory=dict)
    profiles: Mapping[str, Any] = field(default_factory=dict)
    build: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    target: str | None = None
    cv: int = 5
    n_repeats: int = 1
    n_seeds: int = 3
    n_permutations: int = 10
    seed: int = 0
    title: str = "Cohort report"
    full_training: bool = False
    obs: pd.DataFrame = field(init=False, repr=False)
    """One row per sample."""

    def __post_init__(self) -> None:
        _checks.require_registrable(
            self.adata, self.sample_key, layer=self.layer, use_rep=self.use_rep, caller="report"
        )
        if self.use_rep is not None:
            _checks.require_obsm(self.adata, self.use_rep)
        if self.layer is not None:
            _checks.require_layer(self.adata, self.layer)
        if self.cell_type_key is not None:
            _checks.require_obs(self.adata, self.cell_type_key)
        for key in self.columns:
            _checks.require_constant_within_sample(self.adata, key, self.sample_key)
        for name, least in (("cv", 2), ("n_repeats", 1), ("n_seeds", 2), ("n_permutations", 3)):
            if getattr(self, name) < least:
                msg = f"{name} must be at least {least}, but is {getattr(self, name)}."
                raise ValueError(msg)
        object.__setattr__(self, "obs", sample_obs(self.adata, self.sample_key))
        n = len(self.obs)
        if n < MIN_SAMPLES:
            msg = (
                f"adata.obs[{self.sample_key!r}] has {n} sample{'s' if n > 1 else ''}, {_checks.first(self.obs.index)}: a report compares samples and "
                f"needs at least {MIN_SAMPLES}. If these are studies or conditions, name the column of the single samples."
            )
            raise ValueError(msg)
        if self.label_key is not None:
            self._check_label()
        elif self.event_key is not None:
            msg = f"event_key={self.event_key!r} belongs to a label that is a time: name its column, label_key=... (--label-key)."
            raise ValueError(msg)

    def _check_label(self) -> None:
        column = self.labels
        n_values = column.nunique()
        if n_values < 2:
            msg = (
                f"adata.obs[{self.label_key!r}] has {n_values} value{'' if n_values == 1 else 's'} in {len(column)} samples, {_checks.first(column.dropna().unique())}: "
                "there is nothing to predict. Name another label, or leave it out for a report without scores."
            )
            raise ValueError(msg)
        if self.kind == "class":
            classes = _labels.read_classes(column).names
            if self.target is not None and self.target not in classes:
                msg = f"target={self.target!r} is not a class of {self.label_key!r}. Classes: {_checks.first(classes, 20)}."
                raise ValueError(msg)
        if self.event_key is not None:  # times that are not positive, flags that are none, too few events
            from anndata import AnnData

            from scset_tools.tl._targets import read_target

            read_target(AnnData(obs=self.obs), self.label, event_key=self.event_key)

    @property
    def label(self) -> str:
        """The label, in the parts of the page that are made only where there is one."""
        return cast("str", self.label_key)

    @property
    def columns(self) -> list[str]:
        """Columns of samples that were named, label first."""
        named = (self.label_key, self.event_key, self.groups_key, self.batch_key)
        return list(dict.fromkeys(k for k in named if k is not None))

    @property
    def labels(self) -> pd.Series:
        """Label of each sample; a time without its event is missing."""
        column = self.obs[self.label_key]
        return column if self.event_key is None else column.where(self.obs[self.event_key].notna())

    @property
    def events(self) -> pd.Series | None:
        """For times, whether the event of each sample was seen: True, False, or None where the time is missing."""
        if self.event_key is None:
            return None
        is_known = self.labels.notna()
        seen = pd.Series(None, index=self.obs.index, dtype=object)
        seen[is_known] = _events.read_events(self.obs.loc[is_known, self.event_key])
        return seen

    @property
    def kind(self) -> str:
        """Kind of the label: class, ordinal, continuous or time_to_event."""
        return _labels.guess_kind(self.labels) if self.event_key is None else "time_to_event"

    @property
    def explained(self) -> str | None:
        """Class that attributions explain: the one asked for, of two the second, of more the most frequent."""
        if self.label_key is None or self.kind != "class":
            return None
        read = _labels.read_classes(self.labels)
        if self.target is not None:
            return self.target
        sizes = np.bincount(read.codes[read.codes >= 0], minlength=len(read.names))
        return read.names[1] if len(read.names) == 2 else read.names[int(sizes.argmax())]

    @property
    def source(self) -> str:
        """Where features are read, for people."""
        if self.use_rep is not None:
            return f"obsm[{self.use_rep!r}]"
        return "X" if self.layer is None else f"layers[{self.layer!r}]"

    def text_of(self, key: str | None) -> list[str | None]:
        """A column of samples as text, None where missing or not asked for."""
        if key is None:
            return [None] * len(self.obs)
        column = self.obs[key]
        return [None if na else _labels.name_of(v) for v, na in zip(column, column.isna(), strict=True)]

    def training(self, name: str) -> dict[str, Any]:
        """Arguments of ``train`` of a model: those that were given, and a brief training where nothing was said.

        A report trains a model for the maps, in each fold and for each seed of attributions. Other models are trained as they are by default: that
        less is enough was not shown for them.
        """
        train = dict(self.train)
        if self.full_training or name not in BRIEF_MODELS:
            return train
        per_batch = train.get("batch_size", 16)
        n_batches = -(-int(0.8 * len(self.obs)) // per_batch)
        if not {"max_epochs", "max_steps", "max_time"} & set(train):
            train["max_epochs"] = max(round(BRIEF_STEPS / max(n_batches, 1)), 4)
        if "n_cells" not in train:
            own = self.build.get("n_cells")
            train["n_cells"] = max(BRIEF_CELLS, own if isinstance(own, int) else 0)
        return train

    def fingerprint(self) -> str:
        """Checksum of the cells and of all that was asked: two requests of one checksum have one report."""
        from scset_tools import __version__

        digest = hashlib.blake2b(digest_size=12)
        asked = {
            name: getattr(self, name)
            for name in (
                *(
                    "sample_key",
                    "label_key",
                    "event_key",
                    "groups_key",
                    "batch_key",
                    "cell_type_key",
                    "use_rep",
                    "layer",
                ),
                "target",
                *("cv", "n_repeats", "n_seeds", "n_permutations", "seed", "full_training"),
            )
        }
        asked |= {"version": __version__, "models": list(self.models), "build": self.build, "train": self.train}
        asked["profiles"] = {name: (type(p).__name__, _params(p)) for name, p in self.profiles.items()}
        digest.update(json.dumps(asked, sort_keys=True, default=str).encode())
        for key in dict.fromkeys([self.sample_key, *self.columns, *filter(None, [self.cell_type_key])]):
            column = _checks.require_obs(self.adata, key)
            codes, values = pd.factorize(column)
            _add(digest, np.asarray(codes, dtype=np.int64), [str(v) for v in values])
        _add(digest, [str(v) for v in self.adata.var_names], [str(v) for v in self.adata.obs_names])
        _add_values(digest, self.adata, self.use_rep, self.layer)
        return digest.hexdigest()


def _params(profile: Any) -> dict[str, str]:
    get = getattr(profile, "get_params", None)
    return {} if get is None else {k: str(v) for k, v in sorted(get(deep=False).items())}


def _add(digest: Any, *parts: np.ndarray | Sequence[str]) -> None:
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).view(np.uint8).data)
        else:
            digest.update("\0".join(part).encode("utf-8", "surrogatepass"))


def _add_values(digest: Any, adata: AnnData, use_rep: str | None, layer: str | None) -> None:
    """All values that lie in memory; of a file its size, its age and the first rows."""
    x = adata.obsm[use_rep] if use_rep is not None else adata.X if layer is None else adata.layers[layer]
    if isinstance(x, pd.DataFrame):
        x = x.to_numpy()
    if hasattr(x, "indptr") and isinstance(getattr(x, "data", None), np.ndarray):
        _add(digest, x.data, x.indices, x.indptr)
    elif isinstance(x, np.ndarray) and x.dtype != object:
        _add(digest, x)
    else:
        digest.update(str(getattr(x, "shape", "")).encode())
        if adata.filename is not None:
            state = Path(adata.filename).stat()
            digest.update(f"{state.st_size} {state.st_mtime_ns}".encode())
        head = x[:64]
        head = head.compute() if hasattr(head, "compute") else head
        _add(digest, np.asarray(head.toarray() if hasattr(head, "toarray") else head, dtype=np.float64))
