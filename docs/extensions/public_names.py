"""Point references to where a name is public: annotations know `scset_tools.data._batch.SampleBatch`, pages do not.

A reference to something of ours that exists but is private becomes plain text; one to nothing stays an error.
"""

from __future__ import annotations

from importlib import import_module

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


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


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element) -> nodes.Element | None:
    """The documented object behind a private path or a bare name."""
    target = str(node.get("reftarget", "")).lstrip("~")
    if node.get("refdomain") != "py":
        return None
    domain = env.domains.python_domain
    wanted = find(target) if target.startswith("scset_tools.") else None
    last = target.rpartition(".")[2]
    for name, entry in domain.objects.items():
        if name.rpartition(".")[2] == last and (find(name) is wanted if wanted is not None else target == last):
            reference = nodes.reference("", "", internal=True)
            reference["refuri"] = (
                f"{app.builder.get_relative_uri(node.get('refdoc', env.docname), entry.docname)}#{entry.node_id}"
            )
            reference += contnode
            return reference
    return contnode if wanted is not None else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Come before intersphinx, which would look elsewhere."""
    app.connect("missing-reference", resolve, priority=400)
    return {"parallel_read_safe": True}
