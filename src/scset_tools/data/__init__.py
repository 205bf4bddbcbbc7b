"""From a registered AnnData to batches of samples."""

from scset_tools.data._index import SampleIndex
from scset_tools.data._rows import RowReader

__all__ = ["RowReader", "SampleIndex"]
