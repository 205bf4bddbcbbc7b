"""Which column of the data is which gene of a vocabulary."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scset_tools import _checks


def gene_numbers(features: np.ndarray, vocabulary: np.ndarray) -> np.ndarray:
    """Number of each feature in the vocabulary, -1 where it has none, (features,), int64."""
    names = pd.Index(vocabulary)
    if not names.is_unique:
        msg = f"genes repeats {_checks.first(names[names.duplicated()].unique())}: each gene has one embedding."
        raise ValueError(msg)
    numbers = names.get_indexer(pd.Index(features)) if len(features) else np.zeros(0)
    if (numbers >= 0).sum() == 0:
        msg = (
            f"None of the {len(features)} features ({_checks.first(features)}) is among the {len(names)} genes of the model "
            f"({_checks.first(names)}). Are both symbols, or both identifiers?"
        )
        raise ValueError(msg)
    twice = pd.Series(numbers[numbers >= 0]).duplicated()
    if twice.any():
        msg = f"Features repeat: {_checks.first(names[numbers[numbers >= 0][twice]])}. Give each gene one column."
        raise ValueError(msg)
    return numbers.astype(np.int64)
