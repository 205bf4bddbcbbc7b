"""PaSCient from the weights of another one: its encoder, and the heads of labels that both have."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from scvi import REGISTRY_KEYS

from scset_tools import _checks
from scset_tools.model.pascient._checkpoint import PublishedModel
from scset_tools.model.pascient._setup import check_scale
from scset_tools.model.supervise._fitted import FittedHead

if TYPE_CHECKING:
    import torch

    from scset_tools.model.supervise._heads import Head


class StartedPaSCient(PublishedModel):
    """What ``from_pretrained`` does otherwise for a model that learns labels while it is trained."""

    unlearned_: list[str] | None = None
    """Labels whose heads are still random: those that the pretrained model did not learn."""

    @classmethod
    def _start_arguments(cls, source: Any, setup_args: Mapping[str, Any]) -> dict[str, Any]:
        arguments = super()._start_arguments(source, setup_args)
        return {**arguments, "published_classes": None} if setup_args.get("labels_key") else arguments

    def _own_moments(self, *, standardize: bool) -> dict[str, torch.Tensor]:
        del standardize  # location and scale are those of the weights
        return {}

    def _require_start(self, source: Any, moments: Mapping[str, torch.Tensor]) -> None:
        del moments
        features = self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        how = source.init_params_["non_kwargs"]
        check_scale(features, log_normalize=how["log_normalize"], setup_args=self.registry["setup_args"])

    def _take_heads(self, source: Any) -> None:
        known = {(t.name, t.kind, t.classes): i for i, t in enumerate(source.module.targets)}
        new = []
        for head, target in zip(self.module.heads, self.module.targets, strict=True):
            i = known.get((target.name, target.kind, target.classes))
            if i is None:
                new.append(target.name)
            else:
                head.load_state_dict(source.module.heads[i].state_dict())
        self.unlearned_ = new or None
        if new:
            learned = [f"{t.name}: {list(t.classes) or t.kind}" for t in source.module.targets]
            warnings.warn(
                f"The pretrained PaSCient did not learn {_checks.first(new)} as they are here (it learned {_checks.first(learned)}): train() before you "
                "predict.",
                UserWarning,
                stacklevel=5,
            )

    def _own_heads(self) -> dict[str, FittedHead]:
        samples = tuple(getattr(self, "train_samples_", None) or ())
        return {
            target.name: FittedHead(target, cast("Head", head), self.module, "sample", "trained", samples)
            for target, head in zip(self.module.targets, self.module.heads, strict=True)
            if target.name not in (self.unlearned_ or ())
        }
