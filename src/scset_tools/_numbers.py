"""Numbers among the arguments of public calls: what each may be, by its name, since a name means the same everywhere."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

Call = TypeVar("Call", bound=Callable[..., Any])


@dataclass(frozen=True)
class Number:
    """What a number may be, and how an error says so."""

    text: str
    whole: bool = False
    low: float = -math.inf
    high: float = math.inf
    holds: Callable[[float], bool] = math.isfinite

    def refuse(self, name: str, value: Any) -> None:
        """Raise TypeError for what is no number of this kind, ValueError for one out of range."""
        kind: type = numbers.Integral if self.whole else numbers.Real
        is_truth = type(value) in (bool, np.bool_)  # which Python counts among the numbers
        if isinstance(value, kind) and not is_truth:
            number = float(cast("float", value))
            if self.low <= number <= self.high and self.holds(number):
                return
            msg = f"{name}={value!r} must be {self.text}."
            raise ValueError(msg)
        if isinstance(value, numbers.Real) and not is_truth and not math.isfinite(float(cast("float", value))):
            msg = f"{name}={value!r} must be {self.text}."
            raise ValueError(msg)
        msg = f"{name}={value!r} must be {self.text}, but is of type {type(value).__name__}."
        raise TypeError(msg)


COUNT = Number("a whole number of 1 or more", whole=True, low=1)
COUNT_FROM_ZERO = Number("a whole number of 0 or more", whole=True, low=0)
FOLDS = Number("a whole number of 2 or more", whole=True, low=2)
PROCESSES = Number("a whole number other than 0 (-1 for all processors)", whole=True, holds=bool)
FINITE = Number("a finite number")
ABOVE_ZERO = Number("a finite number above 0", holds=lambda x: 0 < x < math.inf)
ZERO_OR_MORE = Number("a finite number of 0 or more", low=0)
SHARE = Number("a number from 0 to 1", low=0, high=1)
RATE = Number("a number of 0 or more and below 1", holds=lambda x: 0 <= x < 1)
PART = Number("a number above 0 and at most 1", holds=lambda x: 0 < x <= 1)
LEVEL = Number("a number between 0 and 1", holds=lambda x: 0 < x < 1)
LIMIT = Number("a number above 0 (infinite for none)", holds=lambda x: x > 0)

KINDS: dict[str, Number] = {
    name: kind
    for kind, names in {
        COUNT: """batch_size dim_decoder_head max_bytes max_cells max_epochs max_size min_samples n n_anchors n_batches n_bins
            n_blocks n_cells n_clusters n_components n_contrastive_cells n_decoder_features n_decoder_heads n_decoder_hidden
            n_decoder_layers n_decoder_norms n_donors n_draws n_features n_ff n_fit_cells n_heads n_hidden n_inducing n_latent
            n_latent_heads n_latent_hidden n_layers n_neighbors n_niches n_points n_prototypes n_references n_repeats
            n_resamples n_samples n_seeds n_slots n_subsamples n_subtypes n_targets n_times n_top sizes""",
        COUNT_FROM_ZERO: """effect_seed min_cells min_size n_encoder_layers n_features_shifted n_labels n_latents n_mixtures
            n_permutations n_steps n_tokens pool random_state rng seed""",
        FOLDS: "cv inner_cv",
        PROCESSES: "n_jobs",
        FINITE: "composition_effect marker_effect shift treatment_odds",
        ABOVE_ZERO: """bandwidth cofactor concentration contrastive_temperature depth epsilon figsize init_scale lr lr_backbone
            max_value radius size student_temperature target_depth teacher_temperature""",
        ZERO_OR_MORE: """attention_weight batch_shift batch_weight bin_alpha contrastive_weight distillation_weight
            gradient_clip_val guidance importance_spread jitter min_sd penalty reconstruction_weight tilt token_weight
            treatment_shift weight_decay""",
        SHARE: "center_momentum dominant ema_decay marker_dropout_rate modality_dropout_rate whitening",
        RATE: "covariate_dropout dropout_rate gene_mask_rate mask_rate mask_rates validation_size zero_mask_rate",
        PART: "train_size",
        LEVEL: "alpha level power target",
        LIMIT: "tolerance",
    }.items()
    for name in names.split()
}
"""Name of an argument: what its numbers may be."""


def is_numeric(annotation: object) -> bool:
    """Whether an annotation, as text, takes a number: ``int``, ``float | None``, ``Sequence[int]``."""
    words = str(annotation).replace("[", " ").replace("]", " ").replace(",", " ").replace("|", " ").split()
    return "Literal" not in words and "bool" not in words and bool({"int", "float"} & set(words))


def check_numbers(annotations: Mapping[str, object], given: Mapping[str, Any]) -> None:
    """Raise an error that names the argument for a number that it may not be.

    Parameters
    ----------
    annotations
        Name of an argument: its annotation, as text.
    given
        Name of an argument: what it is given. None, and what is no number where the annotation takes other things too,
        is left to the function; in sequences and mappings every value is looked at.
    """
    for name, value in given.items():
        annotation = str(annotations.get(name, ""))
        if name not in KINDS or not is_numeric(annotation) or value is None:
            continue
        kind = KINDS[name]
        if isinstance(value, Mapping) and "Mapping" in annotation:
            for key, each in value.items():
                kind.refuse(f"{name}[{key!r}]", each)
        elif isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
            if "Sequence" not in annotation and "tuple" not in annotation:
                kind.refuse(name, value)
            for i, each in enumerate(value):
                kind.refuse(f"{name}[{i}]", each)
        elif isinstance(value, str) and "str" in annotation:
            continue
        elif isinstance(value, np.random.Generator) and "Generator" in annotation:
            continue
        elif {"int", "float"} & {part.strip() for part in annotation.split("|")}:
            kind.refuse(name, value)
        else:
            msg = f"{name}={value!r} must be several numbers ({annotation}), but is of type {type(value).__name__}."
            raise TypeError(msg)


def checks_numbers(function: Call) -> Call:
    """Let a function look at its numbers before it begins: see :data:`KINDS`."""
    signature = inspect.signature(function)
    annotations = {p.name: p.annotation for p in signature.parameters.values()}

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind_partial(*args, **kwargs).arguments
        except TypeError:  # Python's own message, which names the function
            return function(*args, **kwargs)
        check_numbers(annotations, given)
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]


def check_methods(cls: type) -> None:
    """Let every public method that a class defines, and its constructor, look at its numbers."""
    for name, member in list(vars(cls).items()):
        if name.startswith("_") and name != "__init__":
            continue
        function = member.__func__ if isinstance(member, classmethod) else member
        if not inspect.isfunction(function) or not any(
            p.name in KINDS and is_numeric(p.annotation) for p in inspect.signature(function).parameters.values()
        ):
            continue
        checked = checks_numbers(function)
        setattr(cls, name, classmethod(checked) if isinstance(member, classmethod) else checked)
