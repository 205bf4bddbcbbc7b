"""A cohort on one page: what is in it, what its samples' vectors know, and what may be said of it.

Four steps, one direction: a request is checked (`_request`), its parts are gathered and kept on disk (`_gather`, `_parts`),
each becomes a section (`_sections`), and the sections one page (`_page`). The room is not called after its one function, since
a module would take the place of the function in the package.
"""

from __future__ import annotations

from scset_tools.reporting._report import report

__all__ = ["report"]
