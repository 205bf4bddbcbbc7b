"""MAESTRO: masked set transformer with self-distillation."""

from scset_tools.model.maestro._model import MAESTRO
from scset_tools.model.maestro._module import MAESTROModule as MAESTROModule  # for those who build on it

__all__ = ["MAESTRO"]
