"""PaSCient: attention multiple-instance learning with attributions."""

from scset_tools.model.pascient._model import PaSCient
from scset_tools.model.pascient._module import PaSCientModule as PaSCientModule  # for those who build on it

__all__ = ["PaSCient"]
