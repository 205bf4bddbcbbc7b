"""Training plan and callbacks."""

from scset_tools.train._callbacks import ResumeCheckpoint, SaveBestModel
from scset_tools.train._expected_time import ExpectedTime
from scset_tools.train._health import WatchHealth
from scset_tools.train._keep_best import KeepBest
from scset_tools.train._plan import SampleTrainingPlan
from scset_tools.train._plateau import StopAtPlateau
from scset_tools.train._two_rates import TwoRatePlan

__all__ = [
    "ExpectedTime",
    "KeepBest",
    "ResumeCheckpoint",
    "SampleTrainingPlan",
    "SaveBestModel",
    "StopAtPlateau",
    "TwoRatePlan",
    "WatchHealth",
]
