"""Saved models: written whole or not at all, in plain types, and read without running code of whoever wrote them.

scvi-tools pickles what a model knows, and reading a pickle runs whatever its author put there. All that our models write are
weights, arrays, numbers, text and containers of them; a file that holds more is read only on request.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch
from scvi.model.base._constants import SAVE_KEYS

FRAME = "scset_tools_frame"
"""Key of a dictionary that stands for a DataFrame."""


def own_files(prefix: str | None) -> tuple[str, ...]:
    """Names of the files of a saved model.

    Parameters
    ----------
    prefix
        As given to ``save``.
    """
    return tuple(
        f"{prefix or ''}{name}" for name in (SAVE_KEYS.MODEL_FNAME, SAVE_KEYS.ADATA_FNAME, SAVE_KEYS.MDATA_FNAME)
    )


def encoded(value: Any) -> Any:
    """The value with every DataFrame as a dictionary of lists, and dictionaries of other kinds as plain ones.

    Parameters
    ----------
    value
        What a model keeps.
    """
    if isinstance(value, pd.DataFrame):
        return {
            FRAME: [value.iloc[:, i].tolist() for i in range(value.shape[1])],
            "columns": value.columns.tolist(),
            "index": value.index.tolist(),
            "names": [value.index.name, value.columns.name],
            "dtypes": [str(dtype) for dtype in value.dtypes],
        }
    if isinstance(value, dict):  # a defaultdict too, which holds the function of its defaults
        return {k: encoded(v) for k, v in value.items()}
    return [encoded(v) for v in value] if type(value) is list else value


def decoded(value: Any) -> Any:
    """What :func:`encoded` was given.

    Parameters
    ----------
    value
        What it gave.
    """
    if type(value) is dict and FRAME in value:
        columns = {i: pd.Series(c, dtype=t) for i, (c, t) in enumerate(zip(value[FRAME], value["dtypes"], strict=True))}
        frame = pd.DataFrame(columns, index=range(len(value["index"])))
        frame.index = pd.Index(value["index"], name=value["names"][0])
        frame.columns = pd.Index(value["columns"], name=value["names"][1])
        return frame
    if type(value) is dict:
        return {k: decoded(v) for k, v in value.items()}
    return [decoded(v) for v in value] if type(value) is list else value


def read(path: Path, *, trust: bool = False) -> dict[str, Any]:
    """The content of ``model.pt``, without running anything in it unless its author is trusted.

    Parameters
    ----------
    path
        The file.
    trust
        Whether to read whatever it holds.

    Raises
    ------
    ValueError
        If it cannot be read, is no saved model, or holds what only code can make.
    """
    try:
        with torch.serialization.safe_globals(_safe()):
            content = torch.load(path, map_location="cpu", weights_only=not trust, mmap=not trust)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({found[1]})" if found else ""
        msg = (
            f"{path} holds more than weights, numbers and text{what}: reading it would run code of whoever wrote it. If you "
            "trust them, load it with trust=True, or on the command line with --trust."
        )
        raise ValueError(msg) from error
    except (RuntimeError, EOFError, BadZipFile, OSError) as error:
        msg = f"{path} cannot be read as a saved model: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        raise ValueError(msg) from error
    parts = (SAVE_KEYS.MODEL_STATE_DICT_KEY, SAVE_KEYS.ATTR_DICT_KEY)
    if not isinstance(content, dict) or any(part not in content for part in parts):
        msg = f"{path} cannot be read as a saved model: it lacks {parts[0]} or {parts[1]}."
        raise ValueError(msg)
    return content


def model_name(content: dict[str, Any]) -> str:
    """Class of the model in what :func:`read` gave.

    Parameters
    ----------
    content
        What it gave.
    """
    return str(content[SAVE_KEYS.ATTR_DICT_KEY]["registry_"]["model_name"])


def require_loadable(cls: type, dir_path: str | os.PathLike, arguments: dict[str, Any], *, trust: bool) -> None:
    """Raise ValueError unless a folder holds a model of this class that can be read as asked; nothing is said of none at all.

    Parameters
    ----------
    cls
        Class of the model.
    dir_path
        Folder.
    arguments
        Arguments of scvi-tools' ``load``.
    trust
        As in :func:`read`.
    """
    name = f"{arguments.get('prefix') or ''}{SAVE_KEYS.MODEL_FNAME}"
    if arguments.get("backup_url"):
        from scvi.data._download import _download  # not exported

        _download(arguments["backup_url"], str(dir_path), name)
    path = Path(dir_path) / name
    if not path.is_file():
        return
    known = model_name(read(path, trust=trust))
    if known != cls.__name__ and known not in (arguments.get("allowed_classes_names_list") or []):
        msg = f"{path} holds a {known}, not a {cls.__name__}: load it by {known}.load."
        raise ValueError(msg)


def _safe() -> list[Any]:
    """What may be called to read a file: makers of plain arrays and containers."""
    core = getattr(np, "_core", None) or np.core
    multiarray = core.multiarray
    named = [(multiarray._reconstruct, f"numpy.{c}.multiarray._reconstruct") for c in ("core", "_core")]
    named += [(multiarray.scalar, f"numpy.{c}.multiarray.scalar") for c in ("core", "_core")]
    dtypes = [v for v in vars(np.dtypes).values() if isinstance(v, type)]
    return [*named, np.ndarray, np.dtype, *dtypes, bytes]
