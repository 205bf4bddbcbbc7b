"""Every plot with a hundred samples of long names, light and dark: drawn without a warning, no text cut or unseen, no two entries alike."""

from __future__ import annotations

import inspect
from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
import stress_figures
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.text import Text

from scset_tools import pl


def hidden_ticks(figure):
    """Labels of ticks beyond the limits of their axes: artists that are not drawn."""
    out = set()
    for ax in figure.axes:
        for labels, limits, place in (
            (ax.get_xticklabels(), ax.get_xlim(), 0),
            (ax.get_yticklabels(), ax.get_ylim(), 1),
        ):
            out |= {t for t in labels if not min(limits) <= t.get_position()[place] <= max(limits)}
    return out


def texts_of(figure):
    """Texts that are seen."""
    figure.canvas.draw()
    hidden = hidden_ticks(figure)
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]


def look_of(handle):
    if isinstance(handle, Line2D):
        return (to_hex(handle.get_color()), handle.get_marker(), str(handle._dash_pattern), handle.get_markersize())
    return (to_hex(handle.get_facecolor()), handle.get_hatch())


def test_every_function_is_drawn():
    drawn = "".join(inspect.getsource(f) for f in stress_figures.FIGURES.values())
    assert [name for name in pl.__all__ if f"pl.{name}(" not in drawn] == []


@pytest.mark.parametrize("name", stress_figures.FIGURES)
@pytest.mark.parametrize("n", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_many_samples_of_long_names(name, n):
    with plt.style.context("dark_background"):
        figure = stress_figures.figure_of(stress_figures.FIGURES[name](n))
        texts, hidden = texts_of(figure), hidden_ticks(figure)
        places = [(text.get_text(), text.get_window_extent()) for text in texts]
        right, top = figure.bbox.x1 + 3, figure.bbox.y1 + 3
        cut = [name for name, box in places if box.x0 < -3 or box.y0 < -3 or box.x1 > right or box.y1 > top]
        assert cut == []
        behind = to_hex(figure.get_facecolor())
        inside = {text for ax in figure.axes for text in ax.texts}  # these may lie on a colour
        outside = [text for text in texts if text not in inside]
        assert [text.get_text() for text in outside if to_hex(text.get_color()) == behind] == []
        legends = [ax.get_legend() for ax in figure.axes if ax.get_legend() is not None] + figure.legends
        for legend in legends:
            entries = [h for h, t in zip(legend.legend_handles, legend.get_texts(), strict=True) if not is_title(h)]
            numbered = [t.get_text() for t in legend.get_texts()]
            looks = [look_of(h) for h in entries]
            # fields of colour without a shape are numbered
            assert len(set(looks)) == len(looks) or any(text.startswith("1  ") for text in numbered)
        for ax in figure.axes:
            for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
                assert overlaps([t for t in labels if t.get_text() and t not in hidden]) == []
        plt.close(figure)  # drawn above, and not once more at the end


def is_title(handle):
    return isinstance(handle, Line2D) and handle.get_linestyle() == "None" and handle.get_marker() in ("None", "")


def overlaps(labels):
    """Names of one axis that lie over each other; turned ones are taken as upright or level."""
    boxes = [(t.get_text(), t.get_window_extent()) for t in labels if t.get_rotation() in (0, 90)]
    return [(a, b) for (a, x), (b, y) in pairwise(boxes) if shared(x, y) > 0.12]


def shared(x, y):
    """Share of the smaller of two boxes that lies in the other."""
    width, height = min(x.x1, y.x1) - max(x.x0, y.x0), min(x.y1, y.y1) - max(x.y0, y.y0)
    return 0.0 if width <= 0 or height <= 0 else width * height / min(x.width * x.height, y.width * y.height)
