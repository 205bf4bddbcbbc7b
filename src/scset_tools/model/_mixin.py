"""The base of mixins of models: to a type checker a model, whose attributes they use; at run time nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scset_tools.model._base import SampleModelClass as ModelMixin
else:
    ModelMixin = object

__all__ = ["ModelMixin"]
