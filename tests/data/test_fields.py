"""What the fields write on registration, take from new data, and refuse."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scset_tools.data._feature_fields import CellLayerField, CellObsmField
from scset_tools.data._fields import MISSING, CellBatchField, SampleField, SampleLabelField, SampleNumericField

pytestmark = pytest.mark.platform


def labels() -> SampleLabelField:
    return SampleLabelField("labels", "condition", "sample")


# ---- samples


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_samples_are_numbered_in_the_order_of_their_names(adata, dtype):
    adata.obs["sample"] = adata.obs["sample"].astype(dtype)
    state = SampleField("sample", "sample").register_field(adata)
    assert state["categorical_mapping"].tolist() == ["a", "b", "c", "d"]
    assert state["original_key"] == "sample"
    codes = state["codes"]
    assert codes.dtype == np.int64
    assert [state["categorical_mapping"][c] for c in codes] == adata.obs["sample"].tolist()


def test_order_of_categories_does_not_matter_and_unused_ones_are_dropped(adata):
    for ordered in (True, False):
        adata.obs["sample"] = pd.Categorical(
            adata.obs["sample"].astype(str), categories=["d", "unused", "b", "a", "c"], ordered=ordered
        )
        state = SampleField("sample", "sample").register_field(adata)
        assert state["categorical_mapping"].tolist() == ["a", "b", "c", "d"]
        assert (state["codes"][adata.obs["sample"] == "d"] == 3).all()
    assert list(adata.obs["sample"].cat.categories) == ["d", "unused", "b", "a", "c"]  # not touched


@pytest.mark.parametrize("dtype", [int, "Int64", str, "category"])
def test_numbered_samples_have_one_order_whatever_their_type(adata, dtype):
    adata.obs["sample"] = adata.obs["sample"].map({"a": 10, "b": 0, "c": 2, "d": 1}).astype(dtype)
    state = SampleField("sample", "sample").register_field(adata)
    assert state["categorical_mapping"].tolist() == ["0", "1", "10", "2"]


def test_new_data_have_samples_of_their_own(adata):
    field = SampleField("sample", "sample", min_cells=5)
    with pytest.raises(
        ValueError, match=r"1 of 4 samples of adata.obs\['sample'\] have fewer than min_cells=5 cells \('b': 1\)"
    ):
        field.register_field(adata)
    field = SampleField("sample", "sample")
    state = field.register_field(adata)
    new = adata[adata.obs["sample"] == "c"].copy()
    new.obs["sample"] = "z"
    transferred = field.transfer_field(state, new)
    assert transferred["categorical_mapping"].tolist() == ["z"]  # one sample is enough to embed
    assert (transferred["codes"] == 0).all()


def test_samples_that_cannot_be_told_apart(adata):
    field = SampleField("sample", "sample")
    one = adata[adata.obs["sample"] == "c"].copy()
    with pytest.raises(ValueError, match=r"has 1 sample \(\['c'\], 12 cells\), but training needs at least 2"):
        field.register_field(one)
    adata.obs["sample"] = adata.obs["sample"].map({"a": 1, "b": "1", "c": "c", "d": "d"}).astype(object)
    with pytest.raises(ValueError, match="differ in type only, not as text"):
        field.register_field(adata)
    adata.obs["sample"] = adata.obs["sample"].where(np.arange(len(adata)) > 1, None)
    with pytest.raises(ValueError, match=r"missing for 2 of 25 cells \(first: \['cell0', 'cell1'\]\)"):
        field.register_field(adata)
    del adata.obs["sample"]
    with pytest.raises(KeyError, match=r"'sample' is not a column of adata.obs"):
        field.register_field(adata)


# ---- labels


def test_labels_are_numbered_and_missing_ones_are_minus_one(adata):
    condition = adata.obs["condition"].astype(object).where(adata.obs["sample"] != "d", None)
    adata.obs["condition"] = pd.Categorical(condition, categories=["zz", "control", "case"])
    state = labels().register_field(adata)
    assert state["categorical_mapping"].tolist() == ["case", "control"]  # by name: these categories have no order
    by_sample = pd.Series(state["codes"]).groupby(adata.obs["sample"].to_numpy(), observed=True).unique()
    assert by_sample["a"] == by_sample["c"] == [0]
    assert by_sample["b"] == [1]
    assert by_sample["d"] == [MISSING]
    assert state["codes"].dtype == np.int64


def test_levels_of_an_ordered_category_keep_their_order(adata):
    adata.obs["condition"] = pd.Categorical(adata.obs["condition"], categories=["zz", "control", "case"], ordered=True)
    assert labels().register_field(adata)["categorical_mapping"].tolist() == ["control", "case"]
    adata.obs["condition"] = adata.obs["condition"].astype(str)
    with pytest.raises(ValueError, match="called ordinal, but has no order"):
        SampleLabelField("labels", "condition", "sample", kind="ordinal").register_field(adata)


def test_labels_of_new_data(adata):
    state = labels().register_field(adata)
    new = adata[adata.obs["condition"] == "control"].copy()
    assert (
        labels().transfer_field(state, new)["codes"] == 1
    ).all()  # the number it has in the model, though it is the only class here
    del new.obs["condition"]
    transferred = labels().transfer_field(state, new)
    assert (transferred["codes"] == MISSING).all()
    assert "condition" not in new.obs
    assert transferred["categorical_mapping"].tolist() == ["case", "control"]
    new.obs["condition"] = np.nan
    assert (labels().transfer_field(state, new)["codes"] == MISSING).all()


def test_unused_categories_of_new_data_are_no_classes(adata):
    state = labels().register_field(adata)
    adata.obs["condition"] = pd.Categorical(adata.obs["condition"].astype(str), categories=["other", "control", "case"])
    codes = labels().transfer_field(state, adata)["codes"]
    assert (codes == adata.obs["condition"].map({"case": 0, "control": 1}).astype(int)).all()


def test_an_unseen_class_raises_even_if_it_is_the_integer_zero(adata):
    adata.obs["condition"] = adata.obs["condition"].map({"case": 1, "control": 2})
    state = labels().register_field(adata)
    assert state["categorical_mapping"].tolist() == [1, 2]
    new = adata.copy()
    new.obs["condition"] = new.obs["condition"].replace(1, 0)
    with pytest.raises(ValueError, match=r"1 categories the model was not trained on: \['0'\] \(known: \['1', '2'\]\)"):
        labels().transfer_field(state, new)


def test_integer_labels_with_missing_ones_are_the_same_classes(adata):
    adata.obs["condition"] = adata.obs["condition"].map({"case": 1, "control": 2})
    state = labels().register_field(adata)
    new = adata.copy()
    new.obs["condition"] = new.obs["condition"].astype(float).where(new.obs["sample"] != "d")
    codes = labels().transfer_field(state, new)["codes"]
    assert pd.Series(codes).groupby(new.obs["sample"].to_numpy()).first().tolist() == [0, 1, 0, MISSING]


def test_labels_that_vary_within_a_sample_or_are_all_missing(adata):
    adata.obs.loc[adata.obs_names[adata.obs["sample"] == "c"][0], "condition"] = "other"
    with pytest.raises(ValueError, match=r"varies within 1 of 4 samples .*'c': \['other', 'case'\]"):
        labels().register_field(adata)
    adata.obs["condition"] = None
    with pytest.raises(
        ValueError, match=r"adata.obs\['condition'\] is missing for all 25 cells. Leave out `labels_key`"
    ):
        labels().register_field(adata)


# ---- numbers


def test_numbers_per_sample(adata):
    field = SampleNumericField("age", "age", "sample")
    adata.obs["age"] = adata.obs["age"].where(adata.obs["sample"] != "b")
    state = field.register_field(adata)
    written = pd.Series(state["codes"]).groupby(adata.obs["sample"].to_numpy()).first()
    assert written[["a", "c", "d"]].tolist() == [30, 52, 63]
    assert np.isnan(written["b"])
    assert state["codes"].dtype == np.float32
    new = adata.copy()
    del new.obs["age"]
    assert np.isnan(field.transfer_field(state, new)["codes"]).all()
    assert "age" not in new.obs  # what the user did not give is not written under the user's name
    new.obs["age"] = 5
    assert (field.transfer_field(state, new)["codes"] == 5).all()


def test_numbers_must_be_numeric_and_belong_to_samples(adata):
    field = SampleNumericField("age", "age", "sample")
    adata.obs["age"] = adata.obs["age"].map({30: "young", 41: "old", 52: "old", 63: "old"})
    with pytest.raises(
        ValueError, match=r"adata.obs\['age'\] must hold numbers .* but holds \['\w+', '\w+'\] .type str"
    ):
        field.register_field(adata)
    adata.obs["age"] = np.where(adata.obs["sample"] == "b", np.inf, 30.0)
    with pytest.raises(ValueError, match=r"adata.obs\['age'\] is infinite for \d+ of"):
        field.register_field(adata)
    adata.obs["age"] = np.arange(len(adata))
    with pytest.raises(
        ValueError, match=r"adata.obs\['age'\] must have one value per sample, but varies within 3 of 4"
    ):
        field.register_field(adata)


# ---- batches


def test_batches_may_vary_within_a_sample_and_are_known_or_refused(adata):
    field = CellBatchField("batch", "batch")
    state = field.register_field(adata)
    assert state["categorical_mapping"].tolist() == ["b0", "b1"]
    assert state["codes"].tolist() == [int(b == "b1") for b in adata.obs["batch"]]
    new = adata[adata.obs["batch"] == "b1"].copy()
    assert (field.transfer_field(state, new)["codes"] == 1).all()
    new.obs["batch"] = "b2"
    with pytest.raises(ValueError, match=r"not trained on: \['b2'\] \(known: \['b0', 'b1'\]\). A model knows only"):
        field.transfer_field(state, new)
    new.obs.loc[new.obs_names[:2], "batch"] = None
    with pytest.raises(ValueError, match=r"adata.obs\['batch'\] is missing for 2 of"):
        field.transfer_field(state, new)
    del new.obs["batch"]
    with pytest.raises(KeyError, match="'batch' is not a column"):
        field.transfer_field(state, new)


# ---- features


@pytest.mark.parametrize("store", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array, np.asfortranarray])
def test_features_are_neither_copied_nor_converted(adata, store):
    adata.X = store(adata.X.astype(np.float64))
    adata.layers["other"] = adata.X
    x, layer = adata.X, adata.layers["other"]
    state = CellLayerField("X", None).register_field(adata)
    CellLayerField("X", "other").register_field(adata)
    assert adata.X is x
    assert adata.layers["other"] is layer
    assert list(state["column_names"]) == ["g0", "g1", "g2"]


def test_features_that_are_not_there(adata):
    with pytest.raises(KeyError, match=r"'counts' is not in adata.layers"):
        CellLayerField("X", "counts").register_field(adata)
    with pytest.raises(KeyError, match=r"'X_pca' is not in adata.obsm"):
        CellObsmField("X", "X_pca").register_field(adata)
    bare = ad.AnnData(obs=adata.obs, obsm={"X_rep": adata.X})
    with pytest.raises(
        ValueError, match=r"adata.X is empty. Give `layer` or `use_rep`. Keys of adata.obsm: \['X_rep'\]"
    ):
        CellLayerField("X", None).register_field(bare)


def test_features_of_new_data_must_be_the_same_in_the_same_order(adata):
    field = CellLayerField("X", None)
    state = field.register_field(adata)
    field.transfer_field(state, adata.copy())
    with pytest.raises(ValueError, match=r"\(2\) differ from the 3 features .*1 missing, 0 unknown.*\['g1'\]"):
        field.transfer_field(state, adata[:, ["g0", "g2"]].copy())
    with pytest.raises(ValueError, match=r"0 missing, 0 unknown.*Give them in the model's order"):
        field.transfer_field(state, adata[:, ["g1", "g0", "g2"]].copy())
    new = adata.copy()
    new.X[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"adata.X has 1 values that are not finite"):
        field.transfer_field(state, new)


@pytest.mark.parametrize("as_frame", [False, True], ids=["array", "dataframe"])
def test_a_representation_is_checked_by_its_columns(adata, as_frame):
    def rep(columns):
        x = np.ones((len(adata), len(columns)))
        return pd.DataFrame(x, columns=columns, index=adata.obs_names) if as_frame else x

    field = CellObsmField("X", "X_rep")
    adata.obsm["X_rep"] = rep(["pc0", "pc1"])
    state = field.register_field(adata)
    field.transfer_field(state, adata)
    adata.obsm["X_rep"] = rep(["pc0", "pc1", "pc2"])
    with pytest.raises(ValueError, match=r"adata.obsm\['X_rep'\] has 3 columns, but the model was trained on 2"):
        field.transfer_field(state, adata)
    adata.obsm["X_rep"] = rep(["pc1", "pc0"])
    if as_frame:
        with pytest.raises(ValueError, match=r"are \['pc1', 'pc0'\], but the model was trained on \['pc0', 'pc1'\]"):
            field.transfer_field(state, adata)
    else:
        assert field.transfer_field(state, adata)["column_names"].tolist() == state["column_names"].tolist()


def test_cells_without_signal_are_refused_if_the_model_says_so(adata):
    adata.X[4] = 0
    adata.obsm["X_rep"] = adata.X
    assert "column_names" in CellLayerField("X", None).register_field(adata)
    with pytest.raises(ValueError, match=r"adata.X has 1 cells whose features are all zero \(first: \['cell4'\]\)"):
        CellLayerField("X", None, forbid_zero_cells=True).register_field(adata)
    with pytest.raises(ValueError, match=r"adata.obsm\['X_rep'\] has 1 cells whose features are all zero"):
        CellObsmField("X", "X_rep", forbid_zero_cells=True).register_field(adata)


def test_classes_may_be_numbers_beside_text(adata):
    adata.obs["grade"] = adata.obs["sample"].map({"a": 1, "b": "none", "c": 2.5, "d": 1}).astype(object)
    field = SampleLabelField("labels", "grade", "sample")
    state = field.register_field(adata)
    assert list(state["categorical_mapping"]) == [1, 2.5, "none"]
    assert field.get_summary_stats(state) == {"n_labels": 3}
