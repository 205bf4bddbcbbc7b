from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scset_tools import pl

PROPORTIONS = pd.DataFrame(
    [[0.9, 0.1, 0.0], [0.3, 0.7, 0.0], [np.nan, np.nan, np.nan]],
    index=pd.Index(["a", "b", "c"], name="disease"),
    columns=pd.Index(["a", "b", "c"], name="neighbor"),
)


def test_numbers_names_and_colours():
    ax = pl.neighbor_table(PROPORTIONS)
    assert [text.get_text() for text in ax.texts] == ["0.90", "0.10", "0.30", "0.70"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "c"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("neighbor's label", "disease")
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array().filled(np.nan), PROPORTIONS)
    assert image.get_clim() == (0, 1)
    assert [text.get_color() for text in ax.texts[:2]] == ["black", "white"]


def test_a_result_shows_its_counts():
    counts = pd.Series([10, 20, 3], index=PROPORTIONS.index)
    ax = pl.neighbor_table(SimpleNamespace(proportions=PROPORTIONS, counts=counts))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a (10)", "b (20)", "c (3)"]


def test_many_classes_have_no_numbers_and_one_class_works():
    assert not pl.neighbor_table(pd.DataFrame(np.eye(16))).texts
    assert len(pl.neighbor_table(pd.DataFrame([[1.0]], ["a"], ["a"])).texts) == 1


def test_errors():
    with pytest.raises(TypeError, match=r"takes a DataFrame or a result with .proportions, but was given list"):
        pl.neighbor_table([[1.0]])
    with pytest.raises(ValueError, match=r"1 do not \(rows \['b'\]\)"):
        pl.neighbor_table(PROPORTIONS.fillna(0).replace(0.7, 1.2))
    with pytest.raises(ValueError, match="empty table"):
        pl.neighbor_table(pd.DataFrame())
