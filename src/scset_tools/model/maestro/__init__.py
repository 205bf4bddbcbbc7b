"""MAESTRO: masked set transformer with self-distillation."""

from scset_tools.model.maestro._model import MAESTRO
from scset_tools.model.maestro._module import MAESTROModule

__all__ = ["MAESTRO", "MAESTROModule"]
