"""Every plot has an image in the documentation, drawn by the call that is shown."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from scset_tools import pl

DOCS = Path(__file__).resolve().parents[1] / "docs"
spec = importlib.util.spec_from_file_location("gallery", DOCS / "extensions" / "gallery.py")
gallery = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gallery)


def test_every_plot_is_in_the_gallery():
    source = (DOCS / "make_gallery.py").read_text()
    found = gallery.calls(source)
    assert sorted(found) == sorted(pl.__all__)
    assert len({image for image, _ in found.values()}) == len(found)
    assert all(call.startswith(f"sst.pl.{name}(") for name, (_, call) in found.items())
    assert gallery.page(source).count("![") == len(found)


def test_what_stands_for_a_model_is_shown_by_its_name():
    source = 'def f():\n    yield "denoising", pl.denoising(made_up_steps(cells, rng), color="x")[0]\n    yield "again", pl.denoising(a)'
    assert gallery.calls(source) == {"denoising": ("denoising", "sst.pl.denoising(steps, color='x')")}
