from __future__ import annotations

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scset_tools import pl


def result() -> SimpleNamespace:
    composition = pd.DataFrame(
        {"own": [0.2, 0.8], "asked": [0.5, 0.5], "shift": [0.3, -0.3], "ci_low": [0.2, -0.4], "ci_high": [0.4, -0.2]},
        index=["T", "B"],
    )
    table = pd.DataFrame([[1.0, 0.0, -0.1], [0.0, -2.0, 0.1]], index=["T", "B"], columns=["g0", "g1", "g2"])
    return SimpleNamespace(composition=composition, expression=None, table=lambda: table)


def test_shares_and_features():
    axes = pl.counterfactual(result(), n_top=1)
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["T", "B"]
    own, asked = axes[0].collections[2:4]
    np.testing.assert_array_equal(own.get_offsets(), [[0.2, 1], [0.8, 0]])
    np.testing.assert_array_equal(asked.get_offsets(), [[0.5, 1], [0.5, 0]])
    intervals = [path[:, 0].tolist() for path in axes[0].collections[1].get_segments()]
    np.testing.assert_allclose(intervals, [[0.4, 0.6], [0.4, 0.6]])
    assert [t.get_text() for t in axes[1].get_xticklabels()] == ["g0", "g1"]
    np.testing.assert_array_equal(axes[1].images[0].get_array(), [[1, 0], [0, -2]])


def test_own_axes_and_what_is_refused():
    _, mine = plt.subplots(1, 2)
    assert pl.counterfactual(result(), axes=mine)[0] is mine[0]
    with pytest.raises(ValueError, match="Two axes are needed, but 1 were given"):
        pl.counterfactual(result(), axes=mine[:1])
    with pytest.raises(TypeError, match=r"takes the result of tl.counterfactual_shifts, but was given DataFrame"):
        pl.counterfactual(pd.DataFrame())
