from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from scset_tools import pl
from scset_tools.pl._embed import embed
from scset_tools.pl._style import MISSING, OKABE_ITO


def color_of(ax, label: str) -> str:
    """Colour in which a category was drawn."""
    (artist,) = [c for c in ax.collections if c.get_label() == label]
    return to_hex(artist.get_facecolor()[0]).upper()


def n_points(ax) -> int:
    return sum(len(c.get_offsets()) for c in ax.collections)


def test_points_lie_where_the_components_are(make_samples):
    samples = make_samples()
    ax = pl.sample_map(samples)
    xy, names = embed(samples.X.astype(float), "pca", rng=0)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), xy, atol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == tuple(names)
    assert ax.get_legend() is None


def test_categories_have_one_colour_each_and_a_legend(make_samples, legend_texts):
    ax = pl.sample_map(make_samples(), color="group")
    assert len(ax.collections) == 3
    assert [color_of(ax, f"g0{i}") for i in range(3)] == list(OKABE_ITO[:3])
    assert legend_texts(ax) == ["g00", "g01", "g02"]
    assert ax.get_legend().get_title().get_text() == "group"


def test_categories_without_samples_keep_their_colour(make_samples, legend_texts):
    samples = make_samples()
    samples.obs["group"] = samples.obs["group"].cat.set_categories(["g02", "absent", "g01", "g00"])
    ax = pl.sample_map(samples, color="group")
    assert color_of(ax, "g01") == OKABE_ITO[2]
    assert legend_texts(ax) == ["g02", "g01", "g00"]


def test_stored_colours_follow_into_a_view(make_samples, legend_texts):
    samples = make_samples()  # AnnData drops unused categories of a view, and their colours with them
    samples.uns["group_colors"] = np.array(["#111111", "#222222", "#333333"])
    ax = pl.sample_map(samples[samples.obs["group"] != "g00"], color="group")
    assert color_of(ax, "g02") == "#333333"
    assert legend_texts(ax) == ["g01", "g02"]


def test_stored_colours_of_scanpy_are_used(make_samples):
    samples = make_samples()
    samples.uns["group_colors"] = np.array(["#111111", "#222222", "#333333"])
    assert color_of(pl.sample_map(samples, color="group"), "g01") == "#222222"


def test_missing_values_are_grey_beneath_and_last_in_the_legend(make_samples, legend_texts):
    samples = make_samples()
    samples.obs.loc["s0", "group"] = np.nan
    ax = pl.sample_map(samples, color="group")
    assert color_of(ax, "missing") == MISSING
    assert ax.collections[0].get_label() == "missing"
    assert legend_texts(ax)[-1] == "missing"
    assert n_points(ax) == samples.n_obs


def test_many_categories_differ_in_colour_or_shape(make_samples, legend_texts):
    ax = pl.sample_map(make_samples(40, n_categories=20), color="group")
    looks = {(to_hex(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in ax.collections}
    assert len(looks) == len(ax.collections) == len(legend_texts(ax)) == 20


def test_numbers_get_a_scale_with_missing_ones_grey(make_samples, legend_texts):
    samples = make_samples()
    samples.obs.loc["s3", "age"] = np.nan
    ax = pl.sample_map(samples, color="age")
    grey, scaled = ax.collections
    assert to_hex(grey.get_facecolor()[0]).upper() == MISSING
    np.testing.assert_allclose(scaled.get_array(), samples.obs["age"].dropna())
    assert scaled.get_cmap().name == "cividis"
    colorbar = ax.figure.axes[1]
    assert colorbar.get_ylabel() == "age"
    assert legend_texts(ax) == ["missing"]


def test_all_numbers_missing_are_all_grey(make_samples):
    samples = make_samples()
    samples.obs["age"] = np.nan
    (grey,) = pl.sample_map(samples, color="age").collections
    assert to_hex(grey.get_facecolor()[0]).upper() == MISSING


def test_booleans_are_categories(make_samples, legend_texts):
    assert legend_texts(pl.sample_map(make_samples(), color="is_treated")) == ["False", "True"]


def test_style_adds_shapes_and_a_section_of_the_legend(make_samples, legend_texts):
    ax = pl.sample_map(make_samples(), color="group", style="sex")
    assert legend_texts(ax) == ["group", "g00", "g01", "g02", "sex", "female", "male"]
    assert n_points(ax) == 12
    assert len(ax.collections) == 6
    shapes = {c.get_paths()[0].vertices.tobytes() for c in ax.collections}
    assert len(shapes) == 2


def test_style_without_colour_and_with_numbers(make_samples, legend_texts):
    assert legend_texts(pl.sample_map(make_samples(), style="sex")) == ["female", "male"]
    assert len(pl.sample_map(make_samples(), color="age", style="sex").collections) == 2


def test_a_representation_and_stored_coordinates(make_samples):
    samples = make_samples()
    ax = pl.sample_map(samples, use_rep="X_model")
    np.testing.assert_allclose(
        ax.collections[0].get_offsets(), embed(samples.obsm["X_model"].astype(float), "pca", rng=0)[0], atol=1e-6
    )
    ax = pl.sample_map(samples, basis="X_model")
    np.testing.assert_allclose(ax.collections[0].get_offsets(), samples.obsm["X_model"][:, :2])
    assert ax.get_xlabel() == "model 1"


def test_umap_writes_nothing_into_the_samples(make_samples, quick_umap):
    samples = make_samples()
    keys = (set(samples.obsm), set(samples.uns), set(samples.obsp), set(samples.obs))
    ax = pl.sample_map(samples, basis="umap", color="group")
    assert ax.get_xlabel() == "UMAP 1"
    assert n_points(ax) == 12
    assert (set(samples.obsm), set(samples.uns), set(samples.obsp), set(samples.obs)) == keys


def test_one_sample_and_axes_given(make_samples):
    _, mine = plt.subplots()
    ax = pl.sample_map(make_samples(1), color="group", ax=mine)
    assert ax is mine
    assert n_points(ax) == 1


# ---- a panel for each group


def of_tissues(make_samples, n=13):
    """Blood, spleen, one sample of lymph node, and some of unknown tissue; a further tissue has no sample."""
    samples = make_samples(n)
    tissue = np.resize(np.array(["spleen", "blood", "blood", None], dtype=object), n)
    tissue[5] = "lymph node"
    samples.obs["tissue"] = pd.Categorical(tissue, ["spleen", "blood", "lymph node", "marrow"])
    return samples


def shown_in(ax):
    """Positions of the samples that are not a shade."""
    return np.concatenate([c.get_offsets() for c in ax.collections if c.get_label() in ("g00", "g01", "g02")])


def test_each_tissue_has_a_panel_with_one_map_and_one_colour_for_one_thing(make_samples, legend_texts):
    samples = of_tissues(make_samples)
    xy, names = embed(samples.X.astype(float), "pca", rng=0)
    axes = pl.sample_map(samples, groupby="tissue", color="group")
    assert [ax.get_title() for ax in axes] == ["spleen", "blood", "lymph node", "missing"]
    for ax in axes:
        rows = samples.obs["tissue"].astype(object).fillna("missing") == ax.get_title()
        got, want = shown_in(ax), xy[rows.to_numpy()]
        np.testing.assert_allclose(got[np.lexsort(got.T)], want[np.lexsort(want.T)], atol=1e-6)
        assert n_points(ax) == samples.n_obs  # the others are there as a shade
        assert (ax.get_xlim(), ax.get_ylim()) == (axes[0].get_xlim(), axes[0].get_ylim())
        for name in {c.get_label() for c in ax.collections} & {"g00", "g01", "g02"}:
            assert color_of(ax, name) == OKABE_ITO[int(name[-1])]
    assert len(shown_in(axes[2])) == 1
    (with_legend,) = [ax for ax in axes if ax.get_legend() is not None]
    assert legend_texts(with_legend) == ["g00", "g01", "g02"]  # those of all panels, once
    assert [bool(ax.get_xlabel()) for ax in axes] == [False, True, True, True]  # where no panel lies below
    assert [ax.get_ylabel() for ax in axes] == [names[1], "", "", names[1]]


def test_numbers_have_one_scale_over_all_panels(make_samples):
    samples = of_tissues(make_samples)
    samples.obs.loc["s1", "age"] = np.nan
    axes = pl.sample_map(samples, groupby="tissue", color="age")
    scales = [c.norm for ax in axes for c in ax.collections if c.get_array() is not None]
    assert {(norm.vmin, norm.vmax) for norm in scales} == {(samples.obs["age"].min(), samples.obs["age"].max())}
    bars = [ax for ax in axes[0].figure.axes if ax not in list(axes)]
    assert [ax.get_ylabel() for ax in bars] == ["age"]


def test_shapes_are_those_of_all_samples(make_samples, legend_texts):
    samples = of_tissues(make_samples)
    samples.obs["sex"] = np.where(samples.obs["tissue"] == "blood", "male", "female")
    axes = pl.sample_map(samples, groupby="tissue", color="group", style="sex")
    legend = next(ax for ax in axes if ax.get_legend() is not None)
    assert legend_texts(legend) == ["group", "g00", "g01", "g02", "sex", "female", "male"]
    shape = {
        ax.get_title(): {
            c.get_paths()[0].vertices.tobytes() for c in ax.collections if c.get_label() in ("g00", "g01", "g02")
        }
        for ax in axes
    }
    assert shape["spleen"] == shape["lymph node"] != shape["blood"]


def test_one_group_or_none_is_known(make_samples):
    samples = make_samples()
    samples.obs["tissue"] = "blood"
    (ax,) = pl.sample_map(samples, groupby="tissue")
    assert (ax.get_title(), n_points(ax), ax.get_legend()) == ("blood", samples.n_obs, None)
    samples.obs["tissue"] = None
    (ax,) = pl.sample_map(samples, groupby="tissue", color="group")
    assert ax.get_title() == "missing"


def test_panels_may_be_given(make_samples):
    samples = of_tissues(make_samples)
    _, mine = plt.subplots(2, 2)
    assert list(pl.sample_map(samples, groupby="tissue", color="group", ax=mine)) == list(mine.ravel())
    with pytest.raises(ValueError, match="There are 4 categories of 'tissue', but 2 axes"):
        pl.sample_map(samples, groupby="tissue", ax=mine[0])
    with pytest.raises(ValueError, match="groupby='tissue' makes a panel for each group, and so do 2 colours"):
        pl.sample_map(samples, groupby="tissue", color=["group", "age"])
    with pytest.raises(KeyError, match=r"'organ' is not a column of adata.obs"):
        pl.sample_map(samples, groupby="organ")


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"color": "no"}, KeyError, "'no' is not a column of adata.obs"),
        ({"style": "no"}, KeyError, "'no' is not a column of adata.obs"),
        ({"use_rep": "X_no"}, KeyError, "'X_no' is not in adata.obsm"),
        ({"basis": "X_no"}, KeyError, "'X_no' is not in adata.obsm"),
        ({"basis": "X_one"}, ValueError, r"samples.obsm\['X_one'\] has the shape \(40, 1\)"),
        ({"use_rep": "X_nan"}, ValueError, r"not finite in 1 of 40 rows \(first: \['s7'\]\)"),
        ({"color": "group", "style": "sex"}, ValueError, "'group' has 14 categories: past 8"),
        ({"style": "group"}, ValueError, "style='group' has 14 categories, but there are 13 shapes"),
    ],
)
def test_errors(make_samples, kwargs, error, match):
    samples = make_samples(40, n_categories=14)
    samples.obsm["X_one"] = np.ones((40, 1))
    samples.obsm["X_nan"] = np.ones((40, 3))
    samples.obsm["X_nan"][7, 1] = np.nan
    with pytest.raises(error, match=match):
        pl.sample_map(samples, **kwargs)


def test_errors_of_what_is_no_table_of_samples(make_samples):
    with pytest.raises(TypeError, match=r"pl.sample_map takes an AnnData, but was given DataFrame"):
        pl.sample_map(pd.DataFrame([[1.0]]))
    with pytest.raises(ValueError, match=r"samples.X is empty \(samples: 0\)"):
        pl.sample_map(make_samples()[:0])


def test_one_and_the_text_one_are_not_one_colour(make_samples):
    samples = make_samples()
    samples.obs["odd"] = np.resize(np.array([1, "1"], dtype=object), samples.n_obs)
    with pytest.raises(
        ValueError, match=r"adata\.obs\['odd'\] has values that differ in type only: 1 \(int\) and '1' \(str\)"
    ):
        pl.sample_map(samples, color="odd")


def test_names_with_digits_that_are_no_numbers_are_ordered(make_samples, legend_texts):
    samples = make_samples()
    samples.obs["odd"] = np.resize(np.array(["CD4²", "²", "CD10", "CD4"], dtype=object), samples.n_obs)
    assert legend_texts(pl.sample_map(samples, color="odd")) == ["CD4", "CD4²", "CD10", "²"]
