"""What moves the scores that are read off a sample's vector: attributions, attention, and how far both can be trusted."""

from scset_tools.model.explain._result import Attributions
from scset_tools.model.explain._spaces import CellAttributions, FeatureSpace
from scset_tools.model.explain._trust import TrustResult, trust_attributions

__all__ = [
    "Attributions",
    "CellAttributions",
    "FeatureSpace",
    "TrustResult",
    "trust_attributions",
]
