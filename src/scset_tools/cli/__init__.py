"""The command line: fit, embed, probe and benchmark on h5ad files, for clusters and pipelines."""

from __future__ import annotations

from scset_tools.cli._app import main

__all__ = ["main"]
