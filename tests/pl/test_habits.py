"""What scanpy's users pass to a plot: title, palette, show, save, lists of colours and names of features."""

from __future__ import annotations

import inspect

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from scset_tools import pl
from scset_tools.pl._inputs import natural_order, reading_order

HEAT_MAPS = {"enrichment", "gene_heatmap", "neighbor_table", "similarity"}
"""They draw numbers alone: no palette of categories."""


@pytest.mark.parametrize("name", pl.__all__)
def test_every_plot_has_them_and_says_so(name):
    function = getattr(pl, name)
    parameters = inspect.signature(function).parameters
    wanted = ["title", "show", "save"] if name in HEAT_MAPS else ["title", "palette", "show", "save"]
    assert [p for p in parameters if p in ("title", "palette", "show", "save")] == wanted
    assert all(f"\n{p}\n    " in function.__doc__.split("Returns")[0] for p in wanted)


def hues(ax):
    return [to_hex(c.get_facecolor()[0]) for c in ax.collections]


def test_palette_by_list_name_and_category_wins_over_stored_colours(make_samples):
    samples = make_samples()
    samples.uns["group_colors"] = ["#111111", "#222222", "#333333"]
    assert hues(pl.sample_map(samples, color="group")) == ["#111111", "#222222", "#333333"]
    asked = ["#ff0000", "#00ff00", "#0000ff"]
    assert hues(pl.sample_map(samples, color="group", palette=asked)) == asked
    by_name = {"g02": "blue", "g00": "red", "g01": "lime"}
    assert hues(pl.sample_map(samples, color="group", palette=by_name)) == asked
    assert hues(pl.sample_map(samples, color="group", palette="Set2"))[0] == "#66c2a5"
    # nothing is left behind for the next plot
    assert hues(pl.sample_map(samples, color="group")) == ["#111111", "#222222", "#333333"]


@pytest.mark.parametrize(
    ("palette", "error", "message"),
    [
        ({"g00": "red"}, KeyError, r"palette has no colour for \['g01', 'g02'\]"),
        (["rod"], ValueError, r"palette holds \['rod'\]: name colours"),
        ([], ValueError, "palette holds nothing"),
        ("Set22", ValueError, "seaborn knows no palette 'Set22'"),
    ],
)
def test_a_wrong_palette_is_told(make_samples, palette, error, message):
    with pytest.raises(error, match=message):
        pl.sample_map(make_samples(), color="group", palette=palette)


def test_past_the_colours_of_a_palette_the_shape_changes(make_samples):
    ax = pl.sample_map(make_samples(n_categories=4), color="group", palette=["red", "blue"])
    looks = {(to_hex(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in ax.collections}
    assert len(looks) == 4


def test_title_save_and_show(make_samples, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    samples, file = make_samples(), tmp_path / "map.png"
    ax = pl.sample_map(samples, color="group", title="Map", save=file, show=True)
    assert (ax.get_title(), shown) == ("Map", [True])
    assert file.read_bytes()[:4] == b"\x89PNG"
    pl.sample_map(samples, show=False)
    assert shown == [True]
    grid = pl.clustermap(samples, title="Heat", save=tmp_path / "heat.pdf")
    assert grid.figure._suptitle.get_text() == "Heat"
    assert (tmp_path / "heat.pdf").stat().st_size > 0
    with pytest.raises(TypeError, match=r"takes a file name as save, such as 'figure\.pdf', but was given True"):
        pl.sample_map(samples, save=True)


def test_lists_of_colours_and_features(make_samples):
    samples = make_samples()
    axes = pl.sample_map(samples, color=["group", "age", samples.var_names[2]], title=["a", "b", "c"])
    assert [ax.get_title() for ax in axes] == ["a", "b", "c"]
    np.testing.assert_allclose(axes[2].collections[0].get_array(), samples.X[:, 2], rtol=1e-6)
    mine = plt.subplots(1, 2)[1]
    assert pl.sample_map(samples, color=["group", "sex"], ax=mine)[1] is mine[1]
    with pytest.raises(ValueError, match="There are 3 colours, but 2 axes"):
        pl.sample_map(samples, color=["group", "sex", "age"], ax=mine)
    with pytest.raises(ValueError, match="drew 2 axes, but was given 1 titles"):
        pl.sample_map(samples, color=["group", "sex"], title=["a"])
    with pytest.raises(KeyError, match=r"'grop' is not a column of adata\.obs"):
        pl.sample_map(samples, color="grop")


def test_numbers_in_names_are_read_as_numbers(make_samples, legend_texts):
    assert natural_order(["P10", "P2", "P1", "a"]) == ["P1", "P2", "P10", "a"]
    assert reading_order(["P1", "P10", "P2"]) == ["P1", "P2", "P10"]
    assert reading_order(["high", "low", "a"]) == ["high", "low", "a"]
    samples = make_samples(n=12)
    samples.obs["donor"] = [f"P{i}" for i in range(12)]
    want = [f"P{i}" for i in range(12)]
    assert legend_texts(pl.sample_map(samples, color="donor")) == want
    samples.obs["donor"] = samples.obs["donor"].astype("category")  # as anndata stores it: P0, P1, P10, ...
    assert legend_texts(pl.sample_map(samples, color="donor")) == want


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_what_is_drawn_is_seen_on_the_background(make_samples, style):
    with plt.style.context(style):
        behind = to_hex(plt.rcParams["axes.facecolor"])
        axes = pl.subtype_trees({"X": make_samples()}, "group")
        lines = {to_hex(c) for part in axes[0, 0].collections for c in part.get_colors()}
        lines |= {
            to_hex(c) for part in pl.clustermap(make_samples()).ax_row_dendrogram.collections for c in part.get_colors()
        }
        seventh = pl.sample_map(make_samples(n_categories=8), color="group").collections[6]
        to_rgb = plt.matplotlib.colors.to_rgb
        assert all(np.abs(np.subtract(to_rgb(line), to_rgb(behind))).min() > 0.4 for line in lines)
        assert to_hex(seventh.get_facecolor()[0]) != behind


def test_bars_of_a_clustermap_do_not_share_colours_and_number_what_repeats(make_samples):
    samples = make_samples(n=32, n_categories=32)
    samples.obs["treated"] = ["yes", "no"] * 16
    grid = pl.clustermap(samples, color=["sex", "treated", "group"])
    sex, treated, _group = (set(map(to_hex, bar)) for bar in grid.row_colors)
    assert not sex & treated
    texts = [t.get_text() for t in grid.ax_row_colors.texts]
    assert sorted(map(int, texts)) == list(range(1, 33))
    order = grid.dendrogram_row.reordered_ind
    labels = dict(t.get_text().split("  ") for t in grid.figure.legends[0].get_texts() if "  " in t.get_text())
    assert [labels[t] for t in texts] == samples.obs["group"].iloc[order].tolist()


def test_attention_has_ticks_and_one_curve_no_legend(make_samples):
    cells = make_samples(n=60)
    cells.obs["maestro_attention"] = np.random.default_rng(0).uniform(0.8, 1.3, 60)
    ax = pl.attention(cells, groupby="group")
    left, right = ax.get_xlim()
    assert sum(left <= t <= right for t in ax.get_xticks()) >= 3
    history = {"loss_train": pd.DataFrame({"loss_train": [3.0, 2.0]})}
    assert pl.training_history(history).get_legend() is None


def test_names_of_genes_do_not_cover_each_other():
    rng = np.random.default_rng(0)
    crowd = pd.DataFrame(
        {"times_masked": 100 + rng.uniform(0, 2, 8), "mean_when_masked": 1 + rng.uniform(0, 0.02, 8)},
        [f"GENE{i}" for i in range(8)],
    )
    rest = pd.DataFrame({"times_masked": [1.0, 2.0], "mean_when_masked": [0.1, 2.0]}, ["A", "B"])
    ax = pl.masking_frequency(pd.concat([crowd, rest]))
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) > 5
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
