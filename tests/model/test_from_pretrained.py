"""The weights of one model as the start of another."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from _cohort import FIT, make_cohort
from test_open_panel import MARKERS, cells
from test_setup_joint import cohort

import scset_tools as sst

SMALL = {"n_hidden": 16, "n_latent": 6, "n_inducing": 4, "n_cells": 20, "n_heads": 2}
MODELS = {"maestro": (sst.MAESTRO, SMALL), "scset": (sst.ScSet, {k: v for k, v in SMALL.items() if k != "n_inducing"})}
LIFTS = {"maestro": ["student.encoder.lift", "teacher.encoder.lift"], "scset": ["encoder.lift", "denoiser.input"]}
TUNE = {"mode": "end_to_end", "max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False}
UNREAD = "ignore:1 of 6 markers in adata are unknown"


def registered(adata, sample_key="sample", **setup):
    for cls, _ in MODELS.values():
        cls.setup_anndata(adata, sample_key, **{"panel": "open", "labels_key": "condition", **setup})
    return adata


def trained(kind):
    cls, arguments = MODELS[kind]
    model = cls(registered(cells(lacks={"s01": ["CD4"]})), random_state=0, **arguments)
    model.train(**FIT)
    return model


@pytest.fixture(scope="module", params=MODELS)
def source(request):
    return trained(request.param)


@pytest.fixture(scope="module")
def maestro():
    return trained("maestro")


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
    model = type(source).from_pretrained(registered(new, "tube"), source)
    assert model.is_trained
    assert model.history_ is None
    np.testing.assert_array_equal(model.get_sample_representation(), want)


def test_a_saved_model_is_a_start(source, tmp_path):
    source.save(tmp_path / "model")
    adata = registered(cells(seed=1))
    model = type(source).from_pretrained(adata, tmp_path / "model")
    np.testing.assert_array_equal(model.get_sample_representation(), source.get_sample_representation(cells(seed=1)))


def test_unknown_markers_are_named_and_not_read(source):
    adata = registered(renamed(CD56="CD99"))
    with pytest.warns(
        UserWarning, match=r"1 of 6 markers in adata are unknown to the model and are not read \(first: \['CD99'\]\)"
    ):
        model = type(source).from_pretrained(adata, source)
    assert list(model.get_var_names()) == sorted(MARKERS)
    before = model.get_sample_representation()
    changed = adata.copy()
    changed.X[:, changed.var_names.get_loc("CD99")] = 0
    with pytest.warns(UserWarning, match="CD99"):
        np.testing.assert_array_equal(model.get_sample_representation(changed), before)


def test_learned_markers_leave_the_others_as_they_were(source):
    model = type(source).from_pretrained(
        registered(renamed(CD56="a marker with a long name")), source, new_markers="learn"
    )
    assert list(model.get_var_names()) == [*sorted(MARKERS), "a marker with a long name"]
    x = torch.randn(9, 6)
    wide = torch.cat([x, torch.full((9, 1), torch.nan)], dim=1)
    for name in LIFTS[source.name]:
        got, want = (m.module.get_submodule(name)(v) for m, v in ((model, wide), (source, x)))
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    if source.name == "maestro":
        torch.testing.assert_close(*(model.module.get_submodule(name).names[6:] for name in LIFTS["maestro"]))
    own = model._own_moments(standardize=True)
    for name, value in own.items():
        torch.testing.assert_close(getattr(model.module, name)[..., 6:], value[..., 6:])
        torch.testing.assert_close(getattr(model.module, name)[..., :6], getattr(source.module, name))


def test_learned_markers_count_and_kinds_are_fitted_to_the_cohort(source):
    adata = registered(renamed(CD56="CD99"))
    model = type(source).from_pretrained(adata, source, new_markers="learn")
    assert bool(model.module.tokens.is_fitted)
    # the kinds lie at the means of these cells: over all cells they average to the mean
    tokens, dataset = model.module.tokens, model._dataset(adata)
    x = getattr(model.module, "read", model.module.standardize)(dataset[0, list(range(len(dataset)))])
    measured = ~x.isnan().any(0)
    share = tokens.assign(x).mean(0)
    torch.testing.assert_close((share @ tokens.prototypes)[measured], x.mean(0)[measured], rtol=0, atol=0.05)
    before = model.get_sample_representation()
    changed = adata.copy()
    changed.X[:, changed.var_names.get_loc("CD99")] += 1
    assert np.abs(model.get_sample_representation(changed) - before).to_numpy().max() > 1e-3


def test_known_kinds_are_kept_or_fitted_anew(source):
    adata = registered(cells(seed=1))
    kept = type(source).from_pretrained(adata, source)
    torch.testing.assert_close(kept.module.tokens.prototypes, source.module.tokens.prototypes)
    refitted = type(source).from_pretrained(adata, source, kinds="refit")
    assert not torch.allclose(refitted.module.tokens.prototypes, source.module.tokens.prototypes, atol=1e-3)
    with pytest.raises(ValueError, match=r"The pretrained kinds of cells do not know 1 new markers \(\['CD99'\]\)"):
        type(source).from_pretrained(registered(renamed(CD56="CD99")), source, new_markers="learn", kinds="keep")


def test_training_goes_on_and_leaves_the_source(source):
    before = weights(source)
    model = type(source).from_pretrained(registered(cells(seed=1)), source)
    model.train(**FIT)
    assert len(model.history["loss_train"]) == 2
    assert f"{LIFTS[source.name][0]}.names" in moved(model, before)
    torch.testing.assert_close(model.module.tokens.prototypes, before["tokens.prototypes"])
    assert moved(source, before) == set()


@pytest.mark.parametrize("how", ["train", "finetune"])
def test_frozen_parts_do_not_learn(maestro, how, tmp_path):
    frozen = ["markers", "block_1", "block_2"]
    model = sst.MAESTRO.from_pretrained(registered(cells(seed=1)), maestro, freeze=frozen)
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


def test_parts_that_there_are_not(maestro):
    adata = registered(cells(seed=1))
    with pytest.raises(
        ValueError,
        match=r"freeze=\['head'\] must be a list of parts of MAESTROModule, which are \['markers', 'block_1'",
    ):
        sst.MAESTRO.from_pretrained(adata, maestro, freeze=["head"])
    with pytest.raises(ValueError, match="must be a list of parts"):
        sst.MAESTRO.from_pretrained(adata, maestro, freeze="markers")
    encoder = ["markers", "block_1", "block_2", "block_3", "pooling", "projection"]
    model = sst.MAESTRO.from_pretrained(adata, maestro, freeze=encoder)
    with pytest.raises(ValueError, match=r"leaves nothing to train with mode='end_to_end': free a part"):
        model.finetune(**TUNE)


def test_no_marker_in_common(source):
    adata = cells(seed=1)
    adata.var_names = [f"gene {i}" for i in range(6)]
    with pytest.raises(
        ValueError,
        match=r"no marker in common with the pretrained model: it has \['gene 0'.*the model knows 6: \['CD19'",
    ):
        type(source).from_pretrained(registered(adata), source)


def test_values_on_another_scale(source):
    adata = cells(seed=1)
    adata.X = adata.X * 10
    with pytest.raises(
        ValueError, match=r"are not on the scale of the pretraining: over 6 markers.* 1\d\.\d+ times as large"
    ):
        type(source).from_pretrained(registered(adata), source)
    adata = cells(seed=1)
    adata.X = adata.X + 2
    with pytest.warns(UserWarning, match=r"may not be on the scale .*standardize_markers"):
        type(source).from_pretrained(registered(adata), source)


def test_set_ups_that_do_not_fit(source):
    with pytest.raises(
        ValueError, match=r"set up with panel='fixed', but the pretrained (MAESTRO|ScSet) reads panel='open'"
    ):
        type(source).from_pretrained(registered(cells(seed=1), panel="fixed"), source)
    with pytest.raises(ValueError, match="fit no other cohort"):
        type(source).from_pretrained(registered(cells(seed=1), batch_key="batch"), source)
    adata = registered(cells(seed=1))
    with pytest.raises(ValueError, match="to start from is not trained"):
        type(source).from_pretrained(adata, type(source)(adata, **MODELS[source.name][1]))
    with pytest.raises(TypeError, match=r"source must be a \w+ or the directory of a saved one, but is a int"):
        type(source).from_pretrained(adata, 3)
    with pytest.raises(ValueError, match="new_markers='drop' is not one of"):
        type(source).from_pretrained(adata, source, new_markers="drop")


SIZES = {
    "maestro": (sst.MAESTRO, SMALL),
    "scset": MODELS["scset"],
    "pascient": (sst.PaSCient, {"n_hidden": 16, "n_latent": 4}),
    "selfguidedmae": (
        sst.SelfGuidedMAE,
        {"n_hidden": 16, "n_layers": 1, "n_heads": 2, "n_latents": 2, "n_latent_hidden": 8, "n_decoder_hidden": 16,
         "n_decoder_layers": 1, "n_decoder_heads": 2, "values": "normalized"},
    ),
}  # fmt: skip


def set_up(kind, seed=1, **change):
    adata = make_cohort(seed=seed, **change)
    SIZES[kind][0].setup_anndata(adata, "sample", labels_key="condition")
    return adata


@pytest.fixture(scope="module", params=SIZES)
def fixed(request):
    cls, arguments = SIZES[request.param]
    model = cls(set_up(request.param, 0), random_state=0, **arguments)
    model.train(**FIT)
    return request.param, model


def test_a_fixed_panel_starts_another_with_the_same_features(fixed, tmp_path):
    kind, source = fixed
    source.save(tmp_path / "m")
    adata, before = set_up(kind), weights(source)
    model = type(source).from_pretrained(adata, tmp_path / "m")
    pd.testing.assert_frame_equal(
        model.get_sample_representation(), source.get_sample_representation(make_cohort(seed=1))
    )
    model.train(**FIT)
    assert moved(model, before)
    assert moved(source, before) == set()
    other = make_cohort(n_features=4)
    type(source).setup_anndata(other, "sample", labels_key="condition")
    if kind == "pascient":  # finds genes by name, as in inference
        with pytest.warns(UserWarning, match=r"1 of the model's 5 genes are not in adata.var_names and count as zero"):
            fewer = type(source).from_pretrained(other, source)
        with pytest.warns(UserWarning, match="count as zero"):
            want = source.get_sample_representation(make_cohort(n_features=4))
        pd.testing.assert_frame_equal(fewer.get_sample_representation(), want)
        other = make_cohort()
        other.var_names = [f"gene {i}" for i in range(5)]
        type(source).setup_anndata(other, "sample", labels_key="condition")
    with pytest.raises(ValueError, match=r"1 features of the model are missing|None of the model's 5 genes"):
        type(source).from_pretrained(other, source)
    with pytest.raises(ValueError, match=r"new_markers='learn' is for open panels, but the pretrained \w+ reads"):
        type(source).from_pretrained(adata, source, new_markers="learn")
    if kind in MODELS:  # the others keep no location and scale of each feature
        far = make_cohort(seed=1)
        far.X = far.X + 100
        type(source).setup_anndata(far, "sample", labels_key="condition")
        with pytest.raises(ValueError, match=r"over 5 markers that both have, means lie \d"):
            type(source).from_pretrained(far, source)


def test_a_model_of_another_class_is_no_start(fixed, tmp_path):
    kind, source = fixed
    other = "scset" if kind == "maestro" else "maestro"
    cls = SIZES[other][0]
    with pytest.raises(TypeError, match=rf"source must be a {cls.__name__} or .*, but is a {type(source).__name__}"):
        cls.from_pretrained(set_up(other), source)
    source.save(tmp_path / "m")
    with pytest.raises(
        ValueError, match=rf"{type(source).__name__}.*{cls.__name__}|{cls.__name__}.*{type(source).__name__}"
    ):
        cls.from_pretrained(set_up(other), tmp_path / "m")


def test_a_folder_for_the_hub_is_a_start(source, tmp_path):
    pytest.importorskip("huggingface_hub")
    sst.model.to_hub(source, tmp_path / "hub", license_info="cc0-1.0")
    model = type(source).from_pretrained(registered(cells(seed=1)), tmp_path / "hub")
    np.testing.assert_array_equal(model.get_sample_representation(), source.get_sample_representation(cells(seed=1)))


def test_pascient_takes_the_heads_of_labels_that_it_learned():
    source = sst.PaSCient(set_up("pascient", 0), random_state=0, **SIZES["pascient"][1])
    source.train(**FIT)
    with pytest.raises(ValueError, match=r"kinds='refit' says what becomes of kinds of cells, .*PaSCient has none"):
        sst.PaSCient.from_pretrained(set_up("pascient"), source, kinds="refit")
    same = sst.PaSCient.from_pretrained(set_up("pascient"), source)
    pd.testing.assert_frame_equal(same.predict_proba(), source.predict_proba(make_cohort(seed=1)))
    adata = make_cohort(seed=1)
    sst.PaSCient.setup_anndata(adata, "sample", labels_key=["condition", "study"])
    with pytest.warns(UserWarning, match=r"did not learn \['study'\] as they are here .*train\(\) before you predict"):
        model = sst.PaSCient.from_pretrained(adata, source)
    assert list(model.heads) == ["condition"]
    assert model.predict().columns.tolist() == ["condition"]
    model.train(**FIT)
    assert list(model.heads) == ["condition", "study"]


@pytest.mark.filterwarnings("ignore:Cannot join columns with the same name:UserWarning")
@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
@pytest.mark.parametrize("kind", MODELS)
def test_several_modalities_start_others(kind, tmp_path):
    def two(how="paired", **change):
        mdata = cohort(how, **change)
        MODELS[kind][0].setup_mudata(mdata, "sample", modalities=["rna", "adt"])
        return mdata

    cls, arguments = MODELS[kind]
    source = cls(two(), random_state=0, **arguments)
    source.train(**FIT)
    source.save(tmp_path / "m")
    new = two(n_samples=5, seed=3, prefix="new", lacks={"new02": "adt"})
    model = cls.from_pretrained(new, tmp_path / "m")
    np.testing.assert_allclose(model.get_sample_representation(), source.get_sample_representation(new), atol=1e-6)
    model.train(**FIT)
    assert {"rna", "adt"} <= set(model.to_sample_mudata().mod)
    model.annotate_attention()
    assert new["rna"].obs[f"{kind}_attention"].notna().all()
    with pytest.raises(ValueError, match=r"modalities of adata are unpaired, but those of the pretrained model paired"):
        cls.from_pretrained(two("unpaired"), source)
    alone = cohort()
    cls.setup_mudata(alone, "sample", modality="rna", panel="open")
    with pytest.raises(ValueError, match=r"pretrained model has several modalities, but adata was set up on one"):
        cls.from_pretrained(alone, source)
