"""Point references to where a name is public: annotations know `scset_tools.data._batch.SampleBatch`, pages do not.

A reference to something of ours that exists but is private becomes plain text; one to nothing stays an error.
Members that a class has from another library are left to the pages of that library.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PACKAGE = "scset_tools"


@cache
def find(name: str) -> object | None:
    """The object of a dotted name, None if there is none."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for attribute in parts[cut:]:
            found = getattr(found, attribute, None)
        return found
    return None


@cache
def find_bare(name: str) -> object | None:
    """What one of our modules calls by that name: annotations use the private aliases of their file."""
    modules = [module for path, module in list(sys.modules.items()) if path.startswith(f"{PACKAGE}.")]
    return next((vars(module)[name] for module in modules if name in vars(module)), None)


@lru_cache(maxsize=1)
def documented(env: BuildEnvironment, n_objects: int) -> dict[str, list[tuple[str, Any]]]:
    """Last part of a name -> full names and entries of the objects documented so far: a build asks thousands of times."""
    del n_objects  # it tells a later state of the same environment from an earlier one
    found = defaultdict(list)
    for name, entry in env.domains.python_domain.objects.items():
        found[name.rpartition(".")[2]].append((name, entry))
    return found


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element) -> nodes.Element | None:
    """The documented object behind a private path or a bare name."""
    if node.get("refdomain") != "py":
        return None
    target = str(node.get("reftarget", "")).lstrip("~")
    if target in app.config.bare_names:  # as the annotation has it: intersphinx knows the full name
        node["reftarget"] = app.config.bare_names[target]
        return None
    wanted = find(target) if target.startswith(f"{PACKAGE}.") else find_bare(target)
    if wanted is None:
        return None
    pages = documented(env, len(env.domains.python_domain.objects))
    for name, entry in pages.get(target.rpartition(".")[2], []):
        if find(name) is wanted:
            reference = nodes.reference("", "", contnode, internal=True)
            page = app.builder.get_relative_uri(node.get("refdoc", env.docname), entry.docname)
            reference["refuri"] = f"{page}#{entry.node_id}"
            return reference
    return contnode


def skip_foreign(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: object) -> bool | None:  # noqa: FBT001
    """Skip a method or property that was written elsewhere; leave everything else to autodoc."""
    written = getattr(obj, "fget", None) or getattr(obj, "__func__", None) or obj
    module = getattr(written, "__module__", None)
    return True if isinstance(module, str) and not module.startswith(PACKAGE) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Come before intersphinx, which would look elsewhere."""
    app.add_config_value("bare_names", {}, "env")
    app.connect("missing-reference", resolve, priority=400)
    app.connect("autodoc-skip-member", skip_foreign)
    return {"parallel_read_safe": True}
