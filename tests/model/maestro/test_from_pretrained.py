"""The weights of one MAESTRO as the start of another."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from _cohort import FIT, make_cohort
from test_open_panel import MARKERS, cells

import scset_tools as sst

SMALL = {"n_hidden": 16, "n_latent": 6, "n_inducing": 4, "n_cells": 20, "n_heads": 2}
TUNE = {"mode": "end_to_end", "max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False}
UNREAD = "ignore:1 of 6 markers in adata are unknown"


def registered(adata, sample_key="sample", **setup):
    sst.MAESTRO.setup_anndata(adata, sample_key, **{"panel": "open", "labels_key": "condition", **setup})
    return adata


@pytest.fixture(scope="module")
def source():
    model = sst.MAESTRO(registered(cells(lacks={"s01": ["CD4"]})), random_state=0, **SMALL)
    model.train(**FIT)
    return model


def renamed(**names):
    adata = cells(seed=1)
    adata.var_names = [names.get(name.replace("-", "_"), name) for name in adata.var_names]
    return adata


def weights(model):
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def moved(model, before):
    return {name for name, value in model.module.state_dict().items() if not torch.equal(value, before[name])}


def test_nothing_changes_where_all_markers_are_known(source):
    adata = cells(MARKERS[::-1], seed=1)
    want = source.get_sample_representation(adata)
    new = adata.copy()
    new.obs["tube"] = new.obs.pop("sample").to_numpy()
    model = sst.MAESTRO.from_pretrained(registered(new, "tube"), source)
    assert model.is_trained
    assert model.history_ is None
    np.testing.assert_array_equal(model.get_sample_representation(), want)


def test_a_saved_model_is_a_start(source, tmp_path):
    source.save(tmp_path / "model")
    adata = registered(cells(seed=1))
    model = sst.MAESTRO.from_pretrained(adata, tmp_path / "model")
    np.testing.assert_array_equal(model.get_sample_representation(), source.get_sample_representation(cells(seed=1)))


def test_unknown_markers_are_named_and_not_read(source):
    adata = registered(renamed(CD56="CD99"))
    with pytest.warns(
        UserWarning, match=r"1 of 6 markers in adata are unknown to the model and are not read \(first: \['CD99'\]\)"
    ):
        model = sst.MAESTRO.from_pretrained(adata, source)
    assert list(model.get_var_names()) == sorted(MARKERS)
    before = model.get_sample_representation()
    changed = adata.copy()
    changed.X[:, changed.var_names.get_loc("CD99")] = 0
    with pytest.warns(UserWarning, match="CD99"):
        np.testing.assert_array_equal(model.get_sample_representation(changed), before)


def test_learned_markers_leave_the_others_as_they_were(source):
    model = sst.MAESTRO.from_pretrained(
        registered(renamed(CD56="a marker with a long name")), source, new_markers="learn"
    )
    assert list(model.get_var_names()) == [*sorted(MARKERS), "a marker with a long name"]
    x = torch.randn(9, 6)
    ptr = torch.tensor([0, 4, 9])
    wide = torch.cat([x, torch.full((9, 1), torch.nan)], dim=1)
    for which in ("student", "teacher"):
        got, want = (getattr(m.module, which).encoder(v, ptr) for m, v in ((model, wide), (source, x)))
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    new = [getattr(model.module, which).encoder.lift.names[6:] for which in ("student", "teacher")]
    torch.testing.assert_close(*new)


def test_learned_markers_count_and_kinds_are_fitted_to_the_cohort(source):
    adata = registered(renamed(CD56="CD99"))
    model = sst.MAESTRO.from_pretrained(adata, source, new_markers="learn")
    assert bool(model.module.tokens.is_fitted)
    # the kinds lie at the means of these cells: over all cells they average to the mean
    tokens, dataset = model.module.tokens, model._dataset(adata)
    x = model.module.standardize(dataset[0, list(range(len(dataset)))])
    measured = ~x.isnan().any(0)
    share = tokens.assign(x).mean(0)
    torch.testing.assert_close((share @ tokens.prototypes)[measured], x.mean(0)[measured], rtol=0, atol=0.05)
    before = model.get_sample_representation()
    changed = adata.copy()
    changed.X[:, changed.var_names.get_loc("CD99")] += 1
    assert np.abs(model.get_sample_representation(changed) - before).to_numpy().max() > 1e-3


def test_known_kinds_are_kept_or_fitted_anew(source):
    adata = registered(cells(seed=1))
    kept = sst.MAESTRO.from_pretrained(adata, source)
    torch.testing.assert_close(kept.module.tokens.prototypes, source.module.tokens.prototypes)
    refitted = sst.MAESTRO.from_pretrained(adata, source, kinds="refit")
    assert not torch.allclose(refitted.module.tokens.prototypes, source.module.tokens.prototypes, atol=1e-3)
    with pytest.raises(ValueError, match=r"The pretrained kinds of cells do not know 1 new markers \(\['CD99'\]\)"):
        sst.MAESTRO.from_pretrained(registered(renamed(CD56="CD99")), source, new_markers="learn", kinds="keep")


def test_training_goes_on_and_leaves_the_source(source):
    before = weights(source)
    model = sst.MAESTRO.from_pretrained(registered(cells(seed=1)), source)
    model.train(**FIT)
    assert len(model.history["loss_train"]) == 2
    assert "student.encoder.lift.names" in moved(model, before)
    torch.testing.assert_close(model.module.tokens.prototypes, before["tokens.prototypes"])
    assert moved(source, before) == set()


@pytest.mark.parametrize("how", ["train", "finetune"])
def test_frozen_parts_do_not_learn(source, how, tmp_path):
    frozen = ["markers", "block_1", "block_2"]
    model = sst.MAESTRO.from_pretrained(registered(cells(seed=1)), source, freeze=frozen)
    before = weights(model)
    if how == "train":
        model.train(**FIT)
        found = moved(model, before)
    else:
        model.finetune(**TUNE)
        found = set(model.fits_[-1]["encoder"])
    assert any(name.startswith("student.encoder.layers.2.") for name in found)
    assert not any(
        name.startswith(("student.encoder.lift.", "student.encoder.layers.0.", "student.encoder.layers.1."))
        for name in found
    )
    model.save(tmp_path / "model")
    again = sst.MAESTRO.load(tmp_path / "model", adata=registered(cells(seed=1)))
    assert again.module.frozen == tuple(frozen)
    assert not again.module.student.encoder.lift.names.requires_grad
    again.freeze([])
    assert again.module.student.encoder.lift.names.requires_grad


def test_parts_that_there_are_not(source):
    adata = registered(cells(seed=1))
    with pytest.raises(
        ValueError,
        match=r"freeze=\['head'\] must be a list of parts of MAESTROModule, which are \['markers', 'block_1'",
    ):
        sst.MAESTRO.from_pretrained(adata, source, freeze=["head"])
    with pytest.raises(ValueError, match="must be a list of parts"):
        sst.MAESTRO.from_pretrained(adata, source, freeze="markers")
    encoder = ["markers", "block_1", "block_2", "block_3", "pooling", "projection"]
    model = sst.MAESTRO.from_pretrained(adata, source, freeze=encoder)
    with pytest.raises(ValueError, match=r"leaves nothing to train with mode='end_to_end': free a part"):
        model.finetune(**TUNE)


def test_no_marker_in_common(source):
    adata = cells(seed=1)
    adata.var_names = [f"gene {i}" for i in range(6)]
    with pytest.raises(
        ValueError,
        match=r"no marker in common with the pretrained model: it has \['gene 0'.*the model knows 6: \['CD19'",
    ):
        sst.MAESTRO.from_pretrained(registered(adata), source)


def test_values_on_another_scale(source):
    adata = cells(seed=1)
    adata.X = adata.X * 10
    with pytest.raises(
        ValueError, match=r"are not on the scale of the pretraining: over 6 markers.* 1\d\.\d+ times as large"
    ):
        sst.MAESTRO.from_pretrained(registered(adata), source)
    adata = cells(seed=1)
    adata.X = adata.X + 2
    with pytest.warns(UserWarning, match=r"may not be on the scale .*standardize_markers"):
        sst.MAESTRO.from_pretrained(registered(adata), source)


def test_set_ups_that_do_not_fit(source):
    with pytest.raises(ValueError, match="set up with panel='fixed', but the pretrained MAESTRO reads panel='open'"):
        sst.MAESTRO.from_pretrained(registered(cells(seed=1), panel="fixed"), source)
    with pytest.raises(ValueError, match="fit no other cohort"):
        sst.MAESTRO.from_pretrained(registered(cells(seed=1), batch_key="batch"), source)
    adata = registered(cells(seed=1))
    with pytest.raises(ValueError, match="to start from is not trained"):
        sst.MAESTRO.from_pretrained(adata, sst.MAESTRO(adata, **SMALL))
    with pytest.raises(TypeError, match="source must be a MAESTRO or the directory of a saved one, but is a int"):
        sst.MAESTRO.from_pretrained(adata, 3)
    with pytest.raises(ValueError, match="new_markers='drop' is not one of"):
        sst.MAESTRO.from_pretrained(adata, source, new_markers="drop")


def test_a_fixed_panel_starts_another_with_the_same_features():
    def set_up(seed):
        adata = make_cohort(seed=seed)
        sst.MAESTRO.setup_anndata(adata, "sample")
        return adata

    source = sst.MAESTRO(set_up(0), random_state=0, **SMALL)
    source.train(**FIT)
    model = sst.MAESTRO.from_pretrained(set_up(1), source)
    pd.testing.assert_frame_equal(
        model.get_sample_representation(), source.get_sample_representation(make_cohort(seed=1))
    )
    other = set_up(1)
    other.X = other.X + 100
    with pytest.raises(ValueError, match=r"over 5 markers that both have, means lie 1"):
        sst.MAESTRO.from_pretrained(other, source)
    other = make_cohort(n_features=4)
    sst.MAESTRO.setup_anndata(other, "sample")
    with pytest.raises(ValueError, match="1 features of the model are missing"):
        sst.MAESTRO.from_pretrained(other, source)
