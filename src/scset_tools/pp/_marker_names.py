"""Names of markers in one spelling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from scset_tools import _markers

if TYPE_CHECKING:
    from anndata import AnnData


def marker_names(names: AnnData | Iterable[str], *, synonyms: Mapping[str, str] | None = None) -> pd.DataFrame:
    """What the markers behind names of columns or channels are called: ``CD3E``, ``CD3-FITC`` and ``CD3(Yb170)Di`` are CD3.

    Case, isotopes, fluorochromes and what cytometers add (``Comp-``, ``-A``, ``Di``) do not count; gene symbols and CD numbers go by the table that
    comes with the package. A name that is not in it keeps what is left of it: nothing is guessed.

    Parameters
    ----------
    names
        AnnData, whose ``var_names`` are read, or names.
    synonyms
        Further names, to their markers; they come before the table.

    Returns
    -------
    DataFrame indexed by the names as given: ``marker``; ``is_known``, whether the table or a synonym knows it; ``kind``: ``"marker"``,
    ``"scatter"``, ``"time"`` or ``"technical"`` (beads, DNA, Gaussian parameters); ``is_twice``, whether another name stands for the same marker.

    Examples
    --------
    >>> import scset_tools as sst
    >>> table = sst.pp.marker_names(["CD3-FITC", "170Yb_CD3", "PTPRC", "MyMarker", "FSC-A"])
    >>> table["marker"].tolist()
    ['CD3', 'CD3', 'CD45', 'MyMarker', 'FSC-A']
    >>> table.index[~table["is_known"]].tolist()
    ['MyMarker', 'FSC-A']
    """
    given = [str(name) for name in getattr(names, "var_names", names)]
    found = [_markers.marker_of(name, synonyms) for name in given]
    keys = pd.Series([_markers.marker_key(marker) for marker, _ in found], dtype=object)
    return pd.DataFrame(
        {
            "marker": [marker for marker, _ in found],
            "is_known": [is_known for _, is_known in found],
            "kind": [_markers.channel_kind(name) for name in given],
            "is_twice": keys.duplicated(keep=False).to_numpy(),
        },
        index=pd.Index(given, name="name"),
    )
