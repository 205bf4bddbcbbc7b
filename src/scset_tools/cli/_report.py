"""What ``report`` does between its options and the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scset_tools.cli import _methods, _modalities
from scset_tools.cli._commands import read
from scset_tools.cli._files import output, writing
from scset_tools.reporting._report import make, models_of, usual_profiles, usual_title
from scset_tools.reporting._request import Request

if TYPE_CHECKING:
    from scset_tools.cli._session import Session

USUAL = ("maestro",)
"""Model of a report for which no method is named."""


def report(
    cells: Path,
    *,
    session: Session,
    out: Path,
    methods: Sequence[str] | None,
    modalities: Sequence[str] | None,
    is_backed: bool,
    overwrite: bool,
    build: dict[str, Any],
    train: dict[str, Any],
    title: str | None,
    **asked: Any,
) -> None:
    """Write the page of a cohort."""
    for name in methods or ():
        _methods.require_method(name)
    names = [n for n in methods or USUAL if n in _methods.models()]
    for name in names:
        _methods.require_labels(name, {"labels_key": asked["label_key"]}, build, option="--label-key")
    for name in names:
        _methods.require_arguments(name, build, train)
    if names:
        _methods.require_accelerator(train.get("accelerator", "auto"))
        _methods.quiet_libraries()
    with output(out, overwrite=overwrite, endings=(".html", ".htm")) as place:
        adata, chosen = read(cells, session, is_backed=is_backed), _modalities.chosen(modalities)
        adata = _modalities.as_cells(adata, cells, chosen, sample_key=asked["sample_key"], reads=asked)
        request = Request(
            adata,
            **asked,
            models=models_of(names, label_key=asked["label_key"]),
            profiles=_profiles(methods, asked),
            build=build,
            train=train,
            title=title or usual_title(asked["label_key"], asked["sample_key"]),
        )
        parts, text = make(request, out, session.say)
        if place is not None:
            with writing(out):
                place.write_text(text, encoding="utf-8")
    parts.drop()
    session.event("write", path=out, bytes=len(text))
    session.say(f"writing {out}: {len(text) / 1e3:.0f} kB")


def _profiles(methods: Sequence[str] | None, asked: dict[str, Any]) -> dict[str, Any]:
    named = [n for n in methods or () if n in _methods.PROFILES]
    reads = {key: asked[key] for key in ("sample_key", "cell_type_key", "use_rep", "layer")}
    if not named:
        return usual_profiles(**reads, seed=asked["seed"])
    return {name: _methods.profile(name, **reads, rng=asked["seed"]) for name in named}
