"""The folders of weights beside this file: models as :func:`scset_tools.model.to_hub` writes them, read without running code in them."""

from __future__ import annotations

import json
import logging
import re
from contextlib import contextmanager
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

import pandas as pd

from scset_tools import _checks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

    from anndata import AnnData

    from scset_tools.model import MAESTRO

WEIGHTS, CARD, METADATA = "model.pt", "README.md", "_scvi_required_metadata.json"


def list() -> pd.DataFrame:
    """Models whose weights come with the package.

    Returns
    -------
    DataFrame indexed by name: ``model`` (class), ``n_markers`` that it knows, ``n_samples`` that it was trained on, ``megabytes`` and ``license`` of the
    weights.

    Examples
    --------
    >>> import scset_tools as sst
    >>> sst.pretrained.list().index.tolist()
    ['maestro-cytometry-small']
    """
    rows = {}
    for name in _names():
        model = load(name)
        found = re.search(r"^license: (.+)$", card(name), flags=re.MULTILINE)
        rows[name] = {
            "model": type(model).__name__,
            "n_markers": len(model.get_var_names()),
            "n_samples": len(model.sample_names),
            "megabytes": round(len((_folder(name) / WEIGHTS).read_bytes()) / 1e6, 1),
            "license": "" if found is None else found[1],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")


def card(name: str) -> str:
    """The model card: data with their licences, markers, how it was made, scores, and limits.

    Parameters
    ----------
    name
        One of :func:`list`.

    Returns
    -------
    Text in Markdown.

    Raises
    ------
    ValueError
        If there is no such model.
    """
    return (_folder(name) / CARD).read_text(encoding="utf-8")


def load(name: str, adata: AnnData | None = None, **kwargs: Any) -> MAESTRO:
    """A pretrained model, as it is or as the start of one on a cohort of your own.

    Nothing in the file is run to read it.

    Parameters
    ----------
    name
        One of :func:`list`.
    adata
        AnnData registered with ``MAESTRO.setup_anndata(adata, ..., panel="open")``: the model is then that of
        :meth:`scset_tools.MAESTRO.from_pretrained`. Default: none; the model embeds cells with a column ``sample`` in ``obs``. Values are to be
        those of :func:`scset_tools.pp.standardize_markers` either way.
    **kwargs
        ``new_markers``, ``kinds`` and ``freeze`` of :meth:`scset_tools.MAESTRO.from_pretrained`.

    Raises
    ------
    ValueError
        If there is no such model, no marker is in common, values are on another scale, or arguments are given without ``adata``.

    Warns
    -----
    UserWarning
        Which markers are not read.

    Examples
    --------
    >>> import scset_tools as sst
    >>> adata = sst.datasets.cytometry_cohort(n_donors=3, n_cells=50)
    >>> sst.pp.standardize_markers(adata, "batch")
    >>> sst.MAESTRO.setup_anndata(adata, "sample", layer="standardized", panel="open")
    >>> model = sst.pretrained.load("maestro-cytometry-small", adata, new_markers="learn")
    >>> model.to_sample_adata().shape
    (6, 64)
    """
    from scset_tools import model as models

    if adata is None and kwargs:
        msg = f"{_checks.first(kwargs)} say what becomes of a cohort: give adata= as well."
        raise ValueError(msg)
    cls = getattr(models, json.loads((_folder(name) / METADATA).read_text(encoding="utf-8"))["model_cls_name"])
    with as_file(_folder(name)) as path, _quiet():
        model = cls.load(path, adata=False)
    return model if adata is None else cls.from_pretrained(adata, model, **kwargs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a word of scvi-tools on what it did not have to download."""
    logger = logging.getLogger("scvi")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _names() -> Any:
    return sorted(f.name for f in files("scset_tools.pretrained").iterdir() if f.is_dir() and (f / WEIGHTS).is_file())


def _folder(name: str) -> Traversable:
    _checks.require_choice("name", name, _names())
    return files("scset_tools.pretrained") / name
