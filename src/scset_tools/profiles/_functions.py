"""One-line functions, made from the classes so that parameters are written and described once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scset_tools._docs import docs as package_docs
from scset_tools._joined import to_read
from scset_tools.profiles._base import Profile

if TYPE_CHECKING:
    from anndata import AnnData

_TEMPLATE = """{summary}

Fits :class:`~scset_tools.profiles.{name}` on all samples of `adata` and transforms them. Use the class where samples must
stay unseen, as in cross-validation.

Parameters
----------
{adata}
{parameters}
modalities
    With a MuData in the place of `adata`: the modality to read, or several, whose cells are joined first
    (:func:`scset_tools.pp.join_modalities`); `use_rep` and `layer` are then one for all, or a dict by modality.

Returns
-------
AnnData with one row per sample: `X` and `obsm['X_{key}']`, see :meth:`~scset_tools.profiles.Profile.transform`.
"""


def as_function(profile: type[Profile]) -> Callable[..., AnnData]:
    """The function ``(adata, *, <parameters of the class>) -> sample-level AnnData`` named ``profile.name``."""

    def function(adata: AnnData, *, modalities: Any = None, **params: Any) -> AnnData:
        reads: dict[str, Any] = {key: params[key] for key in ("use_rep", "layer") if key in params}
        found = to_read(adata, params.get("sample_key"), modalities, **reads, caller=f"profiles.{profile.name}")
        left: dict[str, Any] = dict(zip(("use_rep", "layer"), found[1:], strict=True))
        params |= {key: left[key] for key in reads}
        return profile(**params).fit_transform(found[0])

    own = [p for p in inspect.signature(profile).parameters.values() if p.name != "self"]
    own.append(
        inspect.Parameter(
            "modalities",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation="Sequence[str] | str | None",
        )
    )
    first = inspect.Parameter("adata", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="AnnData")
    function.__signature__ = inspect.Signature([first, *own], return_annotation="AnnData")  # type: ignore[attr-defined]
    function.__annotations__ = {"adata": "AnnData", **{p.name: p.annotation for p in own}, "return": "AnnData"}
    function.__name__ = function.__qualname__ = profile.name
    function.__module__ = "scset_tools.profiles"
    doc = inspect.cleandoc(profile.__doc__ or "")
    function.__doc__ = _TEMPLATE.format(
        summary=doc.split("\n", 1)[0],
        name=profile.__name__,
        key=profile.name,
        adata=package_docs.params["param_adata"],
        parameters=_section(doc, "Parameters"),
    )
    return function


def _section(doc: str, title: str) -> str:
    """Body of one section of a numpydoc docstring."""
    lines = doc.split("\n")
    start = next((i + 2 for i in range(len(lines) - 1) if lines[i] == title and set(lines[i + 1]) == {"-"}), None)
    if start is None:
        return ""
    stops = (i - 1 for i in range(start, len(lines)) if lines[i] and set(lines[i]) == {"-"})
    return "\n".join(lines[start : next(stops, len(lines))]).strip()
