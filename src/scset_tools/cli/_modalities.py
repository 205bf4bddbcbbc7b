"""An h5mu file in the place of an h5ad file: one modality of it, or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scset_tools import _checks
from scset_tools._modalities import is_mudata
from scset_tools.cli._exit import CommandError, ExitCode

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def chosen(names: Sequence[str] | None) -> list[str]:
    """Names of modalities as they were given: repeated, or with commas between them."""
    return [name.strip() for given in names or () for name in given.split(",") if name.strip()]


def by_modality(text: str | None, names: Sequence[str]) -> Any:
    """An entry for each modality, of ``"rna=X_pca,adt=X_pca"``, or one for all of them; a text where there is one modality."""
    if text is None or (len(names) < 2 and "=" not in text):
        return text
    if "=" not in text:
        return dict.fromkeys(names, text)
    pairs = dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)
    return pairs if len(names) > 1 else pairs.get(next(iter(names), ""))


def require_fitting(data: AnnData | MuData, path: Path, names: Sequence[str], *, knows: bool = False) -> None:
    """Raise where modalities are named and there are none, or there are several and none is named.

    Parameters
    ----------
    data
        What was read.
    path
        Its file.
    names
        Modalities that were asked for.
    knows
        Whether the model that is to read it knows its modalities.
    """
    if not is_mudata(data):
        if names:
            msg = f"--modality {','.join(names)}: {path} is no h5mu file, and has no modalities."
            raise CommandError(msg, ExitCode.USAGE)
        return
    known = list(data.mod)
    if not names and not knows:
        msg = (
            f"{path} holds the modalities {_checks.first(known, 20)}: name one, or several to be joined, by --modality. A file of one modality "
            "alone is h5ad."
        )
        raise CommandError(msg, ExitCode.USAGE)
    unknown = [name for name in names if name not in known]
    if unknown:
        msg = f"--modality: {path} has no {_checks.first(unknown)}. Modalities: {_checks.first(known, 20)}."
        raise CommandError(msg, ExitCode.USAGE)


def with_columns(mdata: MuData, name: str) -> None:
    """Give a modality the columns of the MuData, which in a file are nobody else's: sample vectors are to have them."""
    from scset_tools.model._setup_mudata import lift_column

    for key in [str(c) for c in mdata.obs.columns if ":" not in str(c)]:
        lift_column(mdata, name, key)


def as_cells(
    data: AnnData | MuData,
    path: Path,
    names: Sequence[str],
    *,
    sample_key: str | None,
    reads: dict[str, Any],
    keep_incomplete: bool = False,
) -> AnnData:
    """The AnnData that a command reads; ``reads`` loses what went into the joined cells.

    Parameters
    ----------
    data, path, names
        As for :func:`require_fitting`.
    sample_key
        Column with the sample of each cell.
    reads
        ``use_rep`` and ``layer`` as they were given; changed.
    keep_incomplete
        Whether to keep cells that lack a modality.
    """
    require_fitting(data, path, names)
    if not is_mudata(data):
        return data
    if sample_key is None:
        msg = f"{path} holds cells of several modalities: name their samples by --sample-key."
        raise CommandError(msg, ExitCode.USAGE)
    from scset_tools._joined import cells_of

    how = {}
    for key in ("use_rep", "layer"):
        value = by_modality(reads.get(key), names)
        if len(names) > 1:
            how[key], reads[key] = value, None
        else:
            reads[key] = value
    return cells_of(data, sample_key, names, keep_incomplete=keep_incomplete, caller="--modality", **how)
