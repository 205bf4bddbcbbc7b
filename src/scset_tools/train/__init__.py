"""Training plan and callbacks."""

from scset_tools.train._callbacks import ResumeCheckpoint, SaveBestModel
from scset_tools.train._plan import SampleTrainingPlan

__all__ = ["ResumeCheckpoint", "SampleTrainingPlan", "SaveBestModel"]
