"""The page: whole, without anything from elsewhere, with names as text, and with the figures of the library."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from report_cohort import BRIEF, LABEL, NASTY, SIZES, Page, cohort

import scset_tools as sst
from scset_tools.reporting import _html, _svg


def test_every_section_is_there(made):
    page = Page(made[0])
    assert [i for i in page.ids if i] == ["publish", "cohort", "scores", "confounding", "maps", "neighbours", "health", "attributions"]  # fmt: skip
    assert "Not computed" not in page.text
    assert all(f"#{i}" in dict.fromkeys(v for n, v in page.attributes if n == "href") for i in page.ids)


def test_nothing_comes_from_elsewhere(made):
    page = Page(made[0])
    assert not {"link", "img", "iframe", "object", "base"} & set(page.tags)
    assert not [v for n, v in page.attributes if n in ("src", "action") or (n == "href" and not v.startswith("#"))]
    assert "url(" not in made[0]
    assert "@import" not in made[0]
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:") in page.attributes  # fmt: skip


def test_names_stay_text(made):
    page = Page(made[0])
    assert page.tags.count("script") == 1
    assert "i" not in page.tags
    assert not [n for n, _ in page.attributes if n.startswith("on")]
    assert f"{NASTY}0" in page.text
    assert "HIV+/ART" in page.text
    assert "a&b" in page.text
    assert LABEL in page.text


def test_scores_are_those_of_the_benchmark(made):
    cells = cohort()
    profile = sst.profiles.KMeansFractions(sample_key="sample", rng=0)
    model = sst.model.ModelProfile(
        sst.MAESTRO,
        sample_key="sample",
        build={"random_state": 0, **SIZES},
        train={"seed": 0, "enable_progress_bar": False, **BRIEF},
    )
    bench = sst.tl.benchmark(
        cells,
        {"k": profile, "m": model},
        LABEL,
        sample_key="sample",
        groups_key="donor",
        cv=3,
        n_repeats=1,
        progress=False,
    )
    wanted = bench.summary("balanced_accuracy").set_index("representation")[["mean", "ci_low", "ci_high"]]
    shown = made[1]["scores"]["summary"].set_index("representation")[["mean", "ci_low", "ci_high"]]
    np.testing.assert_allclose(shown.loc[["kmeans_fractions", "maestro"]], wanted.loc[["k", "m"]], rtol=1e-12)


def test_maps_are_principal_components_of_the_training_samples(made):
    from sklearn.decomposition import PCA

    part, split = made[1]["fit maestro"], made[1]["split"]
    x, names = np.asarray(part["x"]), np.asarray(part["samples"])
    pca = PCA(2, svd_solver="full").fit(x[np.isin(names, split["training"])])
    np.testing.assert_allclose(np.abs(part["xy"]), np.abs(pca.transform(x)), atol=1e-6)
    np.testing.assert_allclose(part["share"], pca.explained_variance_ratio_, rtol=1e-6)
    assert not set(split["training"]) & set(split["held_out"])
    donors = cohort().obs.drop_duplicates("sample").set_index("sample")["donor"]
    assert not set(donors[split["training"]]) & set(donors[split["held_out"]])


def test_held_out_samples_are_filled(made):
    n = len(made[1]["split"]["held_out"])
    figure = re.search(r"<figure>.*?</figure>", made[0], re.DOTALL)[0]
    assert len(re.findall(r'class="point c\d filled"', figure)) == n
    assert len(re.findall(r'class="point c\d hollow"', figure)) == 12 - n


def test_cohort_is_described(made):
    part = made[1]["cohort"]
    assert part["n_cells"] == 360
    assert part["design"]["crosstab"].to_numpy().sum() == 12
    assert part["design"]["groups"] == {"n": 12, "n_several": 0, "n_mixed": 0}
    assert sorted(part["label"]["sizes"]) == [6, 6]
    assert any("fewer than 50 cells" in note for note in part["looks"])


def test_neighbours_and_attributions_are_those_of_the_library(made):
    found = made[1]
    x = np.asarray(found["fit maestro"]["x"])
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(d, np.inf)
    labels = cohort().obs.drop_duplicates("sample").set_index("sample")[LABEL].astype(str)
    labels = labels[found["fit maestro"]["samples"]].to_numpy()
    table = found["neighbours"]["tables"]["maestro"]["proportions"]
    for name in table.index:
        near = labels[d[labels == name].argmin(axis=1)]
        assert table.loc[name, name] == pytest.approx((near == name).mean())
    trust = found["trust maestro"]
    assert trust["target"] == "a&b"  # the second of two
    assert trust["n_features"] == 14
    assert list(trust["groups"].columns) == ["group", "mean", "std"]


# ---- pieces


def test_text_is_escaped_and_markup_is_not():
    inner = _html.tag("b", "x < y & z")
    assert inner == "<b>x &lt; y &amp; z</b>"
    assert _html.tag("p", inner, None, ["a", 1], class_='"q"', hidden=True, id=None) == (
        '<p class="&quot;q&quot;" hidden><b>x &lt; y &amp; z</b>a1</p>'
    )
    assert _html.tag("p", "a\x00b\ud800c\u202ed") == "<p>a\ufffdb\ufffdc\ufffdd</p>"


@pytest.mark.parametrize(
    ("value", "text"),
    [(np.nan, "–"), (None, "–"), (-0.001, "0.00"), (-1.234, "\u22121.23"), (1234, "1,234"), (0.5, "0.50")],
)
def test_numbers_for_people(value, text):
    assert _html.number(value) == text


def test_tables_hold_values_to_sort_by():
    frame = pd.DataFrame({"a": ["x", None], "b": [0.123456, np.nan]})
    page = _html.table(frame, heads={"a": "A", "b": "B"})
    assert 'data-v="0.123456"' in page
    assert 'data-v=""' in page
    assert Page(page).text == "ABx0.12––"


def test_more_categories_than_colours_change_shape():
    styles = [_svg.style_of(i) for i in range(30)]
    assert len(set(styles)) == 30
    assert _svg.style_of(-1) == ("none", "circle")


def test_an_interval_is_drawn_where_it_is():
    drawn = _svg.interval(0.5, 0.25, 1.0, bounds=(0.0, 1.0), chance=0.5)
    assert 'cx="95"' in drawn  # the middle of 190
    assert 'x1="49.5"' in drawn
    assert 'x2="186"' in drawn


@pytest.mark.parametrize("shape", _svg.SHAPES)
def test_symbols_lie_around_their_place(shape):
    drawn = _svg.mark(shape, (10, 20), 4, title="<t>")
    assert "&lt;t&gt;" in drawn
    if shape != "circle":
        points = np.array([p.split(",") for p in re.search('points="(.*?)"', drawn)[1].split()], dtype=float)
        assert np.abs(points - [10, 20]).max() <= 6
