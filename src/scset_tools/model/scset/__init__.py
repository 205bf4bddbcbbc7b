"""ScSet: a diffusion autoencoder of samples."""

from scset_tools.model.scset._model import ScSet
from scset_tools.model.scset._module import ScSetModule as ScSetModule  # for those who build on it

__all__ = ["ScSet"]
