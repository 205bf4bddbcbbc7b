"""Arguments of MAESTRO that do not go together."""

from __future__ import annotations

from collections.abc import Sequence


def require_sound(
    mask_rates: Sequence[float],
    reconstruction_weight: float,
    distillation_weight: float,
    *,
    represent_with: str,
    covariates: Sequence[str],
    batch_weights: Sequence[float],
) -> None:
    """Raise ValueError for arguments that leave nothing to learn, or contradict each other; see :class:`~scset_tools.model.MAESTRO`.

    Parameters
    ----------
    mask_rates, reconstruction_weight, distillation_weight, represent_with
        As given by the user.
    covariates
        Names of the registered covariates.
    batch_weights
        Weight of the term that takes each of them out of the vectors.
    """
    if not mask_rates or not all(0 <= rate < 1 for rate in mask_rates):
        msg = f"mask_rates={tuple(mask_rates)} must be one or more shares in [0, 1)."
        raise ValueError(msg)
    if not reconstruction_weight and not distillation_weight:
        msg = "reconstruction_weight and distillation_weight are both 0: there is nothing to learn from."
        raise ValueError(msg)
    if represent_with == "teacher" and not distillation_weight:
        msg = "represent_with='teacher' needs distillation_weight > 0: without distillation there is no teacher."
        raise ValueError(msg)
    if covariates and not reconstruction_weight and not any(batch_weights):
        msg = (
            f"covariate_keys={list(covariates)} are told to the decoder, which reconstruction_weight=0 leaves out: give it a "
            "weight, or take the covariates out of the vectors with batch_weight."
        )
        raise ValueError(msg)
    if any(batch_weights) and represent_with == "teacher":
        msg = (
            "batch_weight takes covariates out of the student's vectors, which represent_with='teacher' does not give."
        )
        raise ValueError(msg)
