"""A small cohort with names that no page may take for markup, and a reader of pages."""

from __future__ import annotations

from html.parser import HTMLParser

import scset_tools as sst

SIZES = {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_cells": 16}
BRIEF = {"max_epochs": 1, "accelerator": "cpu"}
NASTY = "<i onmouseover=alert(1)>"
LABEL = 'state "><script>alert(2)</script>'


def cohort(n_samples=12, rng=0):
    """Samples of two classes in two batches, one donor each."""
    cells = sst.datasets.composition_cohort(n_samples=n_samples, n_cells=30, rng=rng)
    names = list(cells.obs["sample"].unique())
    sample = cells.obs["sample"].astype(str)
    cells.obs["sample"] = sample.map({name: f"{NASTY}{i}" for i, name in enumerate(names)}).to_numpy()
    cells.obs[LABEL] = (
        cells.obs["subtype"].astype(str).map({"subtype_0": "HIV+/ART", "subtype_1": "a&b"}).astype("category")
    )
    cells.obs["batch"] = sample.map({name: f"run {i // 2 % 2}" for i, name in enumerate(names)}).to_numpy()
    cells.obs["age"] = sample.map({name: 20.0 + 3 * i for i, name in enumerate(names)}).to_numpy()
    return cells


class Page(HTMLParser):
    """Elements, texts and ids of a page; fails on an element that is not closed where it should be."""

    VOID = ("meta", "!doctype")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.texts, self.attributes = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return "".join(self.texts)
