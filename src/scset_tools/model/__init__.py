"""Models: one folder each, on a common base."""

from scset_tools.model._as_profile import ModelProfile
from scset_tools.model._base import SampleModelClass
from scset_tools.model._base_module import SampleModule
from scset_tools.model._hub import to_hub
from scset_tools.model._processes import share_inference
from scset_tools.model.explain import Attributions, TrustResult, trust_attributions
from scset_tools.model.maestro import MAESTRO
from scset_tools.model.pascient import PaSCient
from scset_tools.model.scset import ScSet
from scset_tools.model.selfguided import SelfGuidedMAE

__all__ = [
    "MAESTRO",
    "Attributions",
    "ModelProfile",
    "PaSCient",
    "SampleModelClass",
    "SampleModule",
    "ScSet",
    "SelfGuidedMAE",
    "TrustResult",
    "share_inference",
    "to_hub",
    "trust_attributions",
]
