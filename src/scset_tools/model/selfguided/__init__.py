"""SelfGuidedMAE: masked autoencoder over genes that learns which genes to hide."""

from scset_tools.model.selfguided._model import SelfGuidedMAE
from scset_tools.model.selfguided._module import SelfGuidedMAEModule as SelfGuidedMAEModule  # for those who build on it

__all__ = ["SelfGuidedMAE"]
