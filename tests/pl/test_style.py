"""Colours, legends, and what importing the room loads."""

from __future__ import annotations

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from scset_tools.pl._style import (
    LINES,
    MARKERS,
    OKABE_ITO,
    colors_of,
    legend_beside,
    point_handle,
    text_color_on,
    turns,
)


def seen(color: str, matrix: np.ndarray) -> np.ndarray:
    """Colour as seen with a colour blindness (Viénot, Brettel and Mollon 1999: a projection in linear RGB)."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(matrix @ linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(
    "matrix",
    [
        pytest.param(np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]), id="protan"),
        pytest.param(np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]), id="deutan"),
    ],
)
def test_colours_stay_apart_for_colour_blind_readers(matrix):
    colors = [seen(c, matrix) for c in OKABE_ITO]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(colors) for b in colors[:i]]
    assert min(distances) > 0.14
    # the check can fail: matplotlib's own first colours do not stay apart
    tab = [seen(f"C{i}", matrix) for i in range(8)]
    assert min(np.linalg.norm(a - b) for i, a in enumerate(tab) for b in tab[:i]) < 0.1


def test_past_eight_the_shape_changes():
    pairs = list(zip(colors_of(20), turns(20, MARKERS), strict=True))
    assert len(set(pairs)) == 20
    assert pairs[0] == (OKABE_ITO[0], "o")
    assert pairs[8] == (OKABE_ITO[0], "s")
    assert turns(9, LINES)[8] == "--"


def test_legend_stands_outside_and_breaks_into_columns():
    figure, ax = plt.subplots(layout="constrained")
    legend = legend_beside(ax, [("many", [point_handle(str(i)) for i in range(30)])])
    figure.canvas.draw()
    assert legend.get_window_extent().x0 >= ax.get_window_extent().x1
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert legend._ncols == 2


def test_text_is_read_on_dark_and_light():
    assert text_color_on("#00224E") == "white"
    assert text_color_on("#FEE838") == "black"


def test_importing_the_room_loads_no_model_library():
    code = "import sys, scset_tools.pl; print([m for m in ('torch', 'scvi', 'lightning', 'umap') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
