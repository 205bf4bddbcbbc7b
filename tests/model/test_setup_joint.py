"""Models of several modalities: what MAESTRO and ScSet promise of paired and of unpaired cells."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from _cohort import FIT

import scset_tools as sst

# mudata's own: a gene and a protein have one name
pytestmark = [
    pytest.mark.filterwarnings("ignore:Cannot join columns with the same name:UserWarning"),
    pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning"),
]

MODELS = {
    "maestro": (sst.MAESTRO, {"n_hidden": 16, "n_latent": 6, "n_inducing": 4, "n_cells": 20, "n_heads": 2}),
    "scset": (sst.ScSet, {"n_hidden": 16, "n_latent": 6, "n_cells": 20, "n_heads": 2}),
}
BOTH = ["rna", "adt"]


@pytest.fixture(params=MODELS, ids=str)
def kind(request):
    return request.param


@pytest.fixture(params=["paired", "unpaired"])
def how(request):
    return request.param


def cohort(how="paired", *, n_samples=8, lacks=None, seed=0, prefix="s", n=30) -> md.MuData:
    """Cells of two kinds by genes and proteins; ``lacks``: sample to the modality that it lacks. Some paired cells lack one."""
    rng = np.random.default_rng(seed)
    sample = np.repeat([f"{prefix}{i:02d}" for i in range(n_samples)], n)
    parts, labels = {}, {}
    for name, features in (("rna", ["CD4", "g1", "g2", "g3"]), ("adt", ["CD4", "CD8", "CD19"])):
        high = rng.random(len(sample)) < np.repeat(np.linspace(0.2, 0.8, n_samples), n)
        x = np.abs(rng.normal(size=(len(sample), len(features)))) + 3 * high[:, None]
        names = [f"{prefix}c{i}" if how == "paired" else f"{prefix}{name}{i}" for i in range(len(sample))]
        part = ad.AnnData(x.astype(np.float32), obs=pd.DataFrame(index=names), var=pd.DataFrame(index=features))
        keep = ~np.isin(sample, [s for s, m in (lacks or {}).items() if m == name])
        if how == "paired" and name == "adt":
            keep &= np.arange(len(sample)) % 10 != 3
        parts[name] = part[rng.permutation(np.flatnonzero(keep))].copy()
        labels |= dict(zip(names, sample, strict=True))
    mdata = md.MuData(parts)
    mdata.obs["sample"] = pd.Categorical([labels[c] for c in mdata.obs_names])
    number = mdata.obs["sample"].astype(str).str[-2:].astype(int)
    mdata.obs["condition"] = np.where(number % 2, "case", "control")
    return mdata


LACKS = {"s02": "adt", "s05": "rna"}


def fit(kind, mdata, **build):
    cls, arguments = MODELS[kind]
    cls.setup_mudata(mdata, "sample", modalities=BOTH, labels_key="condition")
    model = cls(mdata, random_state=0, **{**arguments, **build})
    model.train(**FIT)
    return model


@pytest.fixture(scope="module")
def fitted():
    models = {}

    def get(kind, how):
        if (kind, how) not in models:
            mdata = cohort(how, lacks=LACKS)
            models[kind, how] = mdata, fit(kind, mdata)
        return models[kind, how]

    return get


def same(a, b, atol=1e-5):
    a, b = a.to_numpy(), b.loc[a.index].to_numpy()
    assert np.abs(a - b).max() <= atol * np.abs(b).max()


def rebuilt(mdata, change):
    """The MuData of changed modalities, with its columns."""
    new = md.MuData({name: change(name, part.copy()) for name, part in mdata.mod.items()})
    new.obs = mdata.obs.loc[new.obs_names].copy()
    return new


def test_samples_have_joint_vectors_and_those_of_each_modality(kind, how, fitted):
    _, model = fitted(kind, how)
    samples = model.to_sample_adata()
    assert samples.shape == (8, 6)
    assert np.isfinite(samples.X).all()
    assert samples.obs["has_adt"].tolist() == [i != 2 for i in range(8)]
    assert samples.obs["has_rna"].tolist() == [i != 5 for i in range(8)]
    assert np.isnan(samples.obsm[f"X_{kind}_adt"]).all(axis=1).tolist() == [i == 2 for i in range(8)]
    np.testing.assert_allclose(samples.obsm[f"X_{kind}_rna"][2], samples.X[2], atol=1e-5)  # all that there is of it
    assert np.abs(samples.obsm[f"X_{kind}_rna"][0] - samples.X[0]).max() > 1e-3
    assert list(samples.uns[kind]["modalities"]) == BOTH
    if how == "unpaired":  # the mean of the two
        mean = (samples.obsm[f"X_{kind}_rna"] + samples.obsm[f"X_{kind}_adt"]) / 2
        np.testing.assert_allclose(mean[[0, 1, 3]], samples.X[[0, 1, 3]], atol=1e-5)


def test_a_mudata_of_samples(kind, how, fitted, tmp_path):
    _, model = fitted(kind, how)
    found = model.to_sample_mudata()
    assert set(found.mod) == {"joint", "rna", "adt"}
    assert found["adt"].n_obs == found["rna"].n_obs == 7
    assert found["joint"].n_obs == 8
    assert found.obs["condition"].tolist() == ["control", "case"] * 4
    for name in ("rna", "adt"):
        pd.testing.assert_frame_equal(found[name].obs, found["joint"].obs.loc[found[name].obs_names])
    assert list(found.obs.columns) == list(found["joint"].obs.columns)
    found.write_h5mu(tmp_path / "s.h5mu")
    read = md.read_h5mu(tmp_path / "s.h5mu")
    np.testing.assert_allclose(read["rna"].X, found["rna"].X)
    assert read["rna"].obs["condition"].tolist() == found["rna"].obs["condition"].tolist()


def test_order_of_cells_and_features_batch_mates_and_pieces_do_not_matter(kind, how, fitted, monkeypatch):
    mdata, model = fitted(kind, how)
    rng = np.random.default_rng(3)
    turned = rebuilt(mdata, lambda _, p: p[rng.permutation(p.n_obs), rng.permutation(p.n_vars)].copy())
    other = md.MuData({"adt": turned["adt"].copy(), "rna": turned["rna"].copy()})
    other.obs = mdata.obs.loc[other.obs_names].copy()
    rep = model.get_sample_representation(mdata)
    pd.testing.assert_frame_equal(model.get_sample_representation(), rep)
    same(model.get_sample_representation(turned), rep)
    same(model.get_sample_representation(other), rep)
    same(model.get_sample_representation(mdata, batch_size=1), rep)
    attention = model.get_attention()
    monkeypatch.setattr("scset_tools.model._inference.MAX_CELLS", 15)
    same(model.get_sample_representation(), rep)
    np.testing.assert_allclose(model.get_attention(), attention, atol=1e-5)


def test_order_of_cells_does_not_matter_in_training(kind, how, fitted):
    rng = np.random.default_rng(4)
    mdata = rebuilt(cohort(how, lacks=LACKS), lambda _, p: p[rng.permutation(p.n_obs)].copy())
    _, model = fitted(kind, how)
    same(fit(kind, mdata).get_sample_representation(), model.get_sample_representation(), atol=1e-4)


@pytest.mark.parametrize("storage", ["csr_matrix", "float64", "file"])
def test_storage_does_not_matter(kind, how, fitted, storage, tmp_path):
    import scipy.sparse as sp

    mdata, model = fitted(kind, how)
    if storage == "file":
        mdata.write_h5mu(tmp_path / "c.h5mu")
        other = md.read_h5mu(tmp_path / "c.h5mu")
    else:

        def change(_, part):
            part.X = sp.csr_matrix(part.X) if storage == "csr_matrix" else part.X.astype(np.float64)
            return part

        other = rebuilt(mdata, change)
    same(model.get_sample_representation(other), model.get_sample_representation())


def test_an_absent_modality_is_left_out(kind, how, fitted):
    """A MuData of one modality, and one whose samples lack the other, give the same vectors; they are those by one modality."""
    mdata, model = fitted(kind, how)
    has = mdata["rna"].obs_names
    alone = md.MuData({"rna": mdata["rna"].copy()})
    alone.obs = mdata.obs.loc[alone.obs_names].copy()
    rep = model.get_sample_representation(alone)
    assert len(rep) == 7
    by = model.to_sample_adata()
    np.testing.assert_allclose(by[rep.index].obsm[f"X_{kind}_rna"], rep.to_numpy(), atol=1e-5)
    joined = sst.pp.join_modalities(mdata, "sample", join="outer")[has].copy()
    joined.X[:, 4:] = np.nan
    joined.obs["cell_modalities"] = "rna"
    same(model.get_sample_representation(joined), rep)


def test_joining_first_is_the_same(kind, how, fitted):
    mdata, model = fitted(kind, how)
    joined = sst.pp.join_modalities(mdata, "sample", join="outer")
    cls, arguments = MODELS[kind]
    cls.setup_anndata(joined, "sample", labels_key="condition", panel="open")
    other = cls(joined, random_state=0, **arguments)
    other.train(**FIT)
    same(other.get_sample_representation(), model.get_sample_representation())


@pytest.mark.parametrize("given", ["mudata", False, None])
def test_save_and_load(kind, how, fitted, tmp_path, given):
    mdata, model = fitted(kind, how)
    model.save(tmp_path / "m", save_anndata=True)
    loaded = MODELS[kind][0].load(tmp_path / "m", adata=mdata if given == "mudata" else given)
    rep = loaded.get_sample_representation(mdata if given is False else None)
    same(rep, model.get_sample_representation())
    assert loaded.joined_["modalities"] == BOTH
    assert loaded.joined_["paired"] is (how == "paired")


def test_results_go_back_to_each_modality(kind, how):
    mdata = cohort(how, lacks=LACKS)
    model = fit(kind, mdata)
    model.annotate_attention()
    model.annotate_attributions("condition", n_steps=2, tolerance=1.0)
    model.finetune("condition", max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    model.annotate_predictions()
    key = f"{kind}_attribution_condition_case"
    joined = model.adata
    for name, part in mdata.mod.items():
        assert part.obs[f"{kind}_attention"].notna().all()
        np.testing.assert_array_equal(part.obs[key], joined.obs.loc[part.obs_names, key])
        assert part.obs[f"{kind}_condition"].isin(["case", "control"]).all()
        want = joined.var.loc[[f"{v}@{name}" for v in part.var_names], key]
        np.testing.assert_array_equal(part.var[key], want)
        assert part.obsm[f"{kind}_attention"].shape[0] == part.n_obs
    weights = model.get_attention().sum(axis=1) / model.get_attention().shape[1]
    np.testing.assert_allclose(weights.groupby(joined.obs["sample"], observed=True).sum(), 1, atol=1e-4)
    if how == "unpaired":  # each modality has the same say
        of = joined.obs["cell_modalities"].astype(str)
        by = weights.groupby([joined.obs["sample"].astype(str), of]).sum()
        np.testing.assert_allclose(by["s00"], [0.5, 0.5], atol=1e-4)
    new = cohort(how, n_samples=3, seed=5, prefix="new")
    del new.obs["condition"]
    model.annotate_attention(new)
    assert new["adt"].obs[f"{kind}_attention"].notna().all()
    assert model.predict(new).shape[0] == 3


def test_the_number_of_unpaired_cells_of_a_modality_does_not_weigh(kind, fitted):
    mdata, model = fitted(kind, "unpaired")
    twice = mdata["rna"].copy()
    twice.obs_names = [f"{c}-again" for c in twice.obs_names]
    more = md.MuData({"rna": ad.concat([mdata["rna"], twice]), "adt": mdata["adt"].copy()})
    more.obs["sample"] = (
        mdata.obs["sample"].astype(str).reindex([c.removesuffix("-again") for c in more.obs_names]).to_numpy()
    )
    if kind == "maestro":  # ScSet cuts sets that are larger than it reads at once
        same(model.get_sample_representation(more), model.get_sample_representation(), atol=1e-4)
    else:
        a, b = model.get_sample_representation(more), model.get_sample_representation()
        assert np.abs(a - b).to_numpy().max() < np.abs(b - b.mean()).to_numpy().max()


def test_representations_layers_and_columns_of_modalities(kind):
    mdata = cohort()
    mdata["rna"].obsm["X_pca"] = mdata["rna"].X[:, :2] * 100
    mdata["adt"].layers["clr"] = mdata["adt"].X - 1
    for part in mdata.mod.values():
        part.obs["age"] = mdata.obs["sample"].astype(str).str[-2:].astype(float).reindex(part.obs_names)
    cls, arguments = MODELS[kind]
    how = {"use_rep": {"rna": "X_pca"}, "layer": {"adt": "clr"}}
    cls.setup_mudata(mdata, "sample", modalities=BOTH, labels_key="age", **how)
    model = cls(mdata, random_state=0, **arguments)
    assert sorted(model.get_var_names()) == ["0@rna", "1@rna", "CD19@adt", "CD4@adt", "CD8@adt"]
    scale = pd.Series(model.module.scale[0].numpy(), index=model.get_var_names())
    assert scale["0@rna"] == pytest.approx(100 * mdata["rna"].X[:, 0].std(), rel=1e-4)
    assert model.adata.obs["age"].dtype == float
    model.is_trained_ = True
    assert model.to_sample_adata().obs["age"].tolist() == list(range(8))


def test_modality_dropout_acts_and_is_a_share(kind):
    mdata = cohort()
    with_it, without = (fit(kind, mdata, modality_dropout_rate=r, marker_dropout_rate=0.0) for r in (0.9, 0.0))
    assert np.abs(with_it.get_sample_representation() - without.get_sample_representation()).to_numpy().max() > 1e-4
    with pytest.raises(ValueError, match=r"modality_dropout_rate=2"):
        MODELS[kind][0](mdata, modality_dropout_rate=2)


def test_pascient_takes_complete_cells(tmp_path):
    mdata = rebuilt(cohort(), lambda _, p: p[[int(c[2:]) % 10 != 3 for c in p.obs_names]].copy())
    sst.PaSCient.setup_mudata(mdata, "sample", modalities=BOTH, labels_key="condition")
    model = sst.PaSCient(mdata, n_hidden=16, n_latent=4, random_state=0)
    model.train(**FIT)
    assert model.predict(mdata).shape[0] == 8
    assert "X_pascient_rna" not in model.to_sample_adata().obsm
    with pytest.raises(ValueError, match="no vectors by modality"):
        model.to_sample_mudata()
    with pytest.raises(ValueError, match=r"24 of 240 cells lack one .* PaSCient reads a fixed panel"):
        sst.PaSCient.setup_mudata(cohort(), "sample", modalities=BOTH, labels_key="condition")
    with pytest.raises(ValueError, match=r"PaSCient reads a fixed panel: its first layer is one product"):
        sst.PaSCient.setup_mudata(mdata, "sample", modalities=BOTH, labels_key="condition", panel="open")


# ---- what is wrong is told before training


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ("unknown", KeyError, r"'atac' is not a modality of the MuData. Modalities: \['rna', 'adt'\]"),
        ("one", ValueError, r"modalities=\['rna'\]: two at least"),
        ("neither", ValueError, r"reads one `modality` or several `modalities` of \['rna', 'adt'\]"),
        ("both", ValueError, r"reads one `modality` or several `modalities`"),
        ("called paired", ValueError, r"In 8 of 8 samples the modalities .* no cell in common .*paired=False"),
        ("called unpaired", ValueError, r"paired=False, but 216 of 240 cells are in several"),
        ("paired of one", ValueError, r"paired=True says how several modalities"),
        ("no modality", ValueError, r"1 of 8 samples have no cell in any of the modalities .*\['s03'\]"),
        ("label", KeyError, "'disease'"),
        ("rep", KeyError, "use_rep names .*'atac'"),
        ("disagree", ValueError, r"mdata\['adt'\]\.obs\['condition'\] says otherwise of 1 cells"),
    ],
)
@pytest.mark.parametrize("cls", [sst.MAESTRO, sst.ScSet, sst.PaSCient], ids=lambda cls: cls.__name__)
def test_bad_input(cls, change, error, match):
    mdata, arguments = cohort(), {"modalities": BOTH}
    if change == "unknown":
        arguments = {"modalities": ["rna", "atac"]}
    elif change == "one":
        arguments = {"modalities": ["rna"]}
    elif change == "neither":
        arguments = {}
    elif change == "both":
        arguments["modality"] = "rna"
    elif change == "called paired":
        mdata, arguments["paired"] = cohort("unpaired"), True
    elif change == "called unpaired":
        arguments["paired"] = False
    elif change == "paired of one":
        arguments = {"modality": "rna", "paired": True}
    elif change == "no modality":
        parts = {**rebuilt(mdata, lambda _, p: p[mdata.obs["sample"].reindex(p.obs_names) != "s03"].copy()).mod}
        mdata2 = md.MuData({**parts, "atac": mdata["rna"].copy()})
        mdata2.obs = mdata.obs.loc[mdata2.obs_names]
        mdata = mdata2
    elif change == "label":
        mdata = rebuilt(mdata, lambda _, p: p[mdata["adt"].obs_names].copy())  # PaSCient asks for complete cells first
        arguments["labels_key"] = "disease"
    elif change == "rep":
        arguments["use_rep"] = {"atac": "X_pca"}
    elif change == "disagree":
        arguments["labels_key"] = "condition"
        mdata["adt"].obs["condition"] = mdata.obs["condition"].astype(str).reindex(mdata["adt"].obs_names)
        mdata["adt"].obs.iloc[3, 0] = "else"
    with pytest.raises(error, match=match):
        cls.setup_mudata(mdata, "sample", **arguments)


def test_new_data_that_do_not_fit(fitted):
    _, model = fitted("maestro", "paired")
    new = cohort(n_samples=3, prefix="new")
    other = md.MuData({"rna": new["rna"].copy(), "adt": new["adt"].copy()})
    other["adt"].var_names = ["p1", "p2", "p3"]
    other.obs = new.obs.loc[other.obs_names]
    with pytest.raises(
        ValueError, match=r"modality 'adt' has no feature in common .*\['p1', 'p2', 'p3'\], the model knows"
    ):
        model.get_sample_representation(other)
    with pytest.raises(KeyError, match=r"none of the modalities \['rna', 'adt'\] of the model"):
        model.get_sample_representation(md.MuData({"atac": new["rna"].copy()}))
    with pytest.raises(ValueError, match="no cell in common"):
        model.get_sample_representation(cohort("unpaired"))


def _rename_feature(mdata):
    mdata["adt"].var_names = ["CD8", "CD4", "CD19"]


def _rename_sample(mdata):
    mdata.obs["sample"] = mdata.obs["sample"].cat.rename_categories({"s03": "other"})


def _turn_labels(mdata):
    mdata.obs["condition"] = mdata.obs["condition"].map({"case": "control", "control": "case"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_rename_feature, r"mdata\['adt'\].var_names differ"),
        (_rename_sample, r"mdata.obs\['sample'\] differ"),
        (_turn_labels, r"mdata.obs\['condition'\] differ"),
    ],
)
@pytest.mark.filterwarnings("ignore:This .* is not trained")
def test_what_changes_after_the_set_up_is_told(kind, change, says):
    mdata = cohort()
    cls, arguments = MODELS[kind]
    cls.setup_mudata(mdata, "sample", modalities=BOTH, labels_key="condition")
    model = cls(mdata, random_state=0, **arguments)
    mdata.obs["unrelated"] = 1
    change(mdata)
    with pytest.raises(ValueError, match=f"mdata is no longer what it was when it was set up: {says}"):
        model.get_sample_representation()
    with pytest.raises(ValueError, match=says):
        model.train(**FIT)


def test_a_copy_is_set_up_anew_and_other_models_say_why_not():
    mdata = cohort()
    sst.MAESTRO.setup_mudata(mdata, "sample", modalities=BOTH)
    with pytest.raises(ValueError, match=r"is a copy, or was read from a file"):
        sst.MAESTRO(mdata.copy())
    with pytest.raises(ValueError, match=r"takes one `modality`: it embeds values of all features by one map"):
        sst.SelfGuidedMAE.setup_mudata(mdata, "sample", modalities=BOTH)


def test_a_modality_of_many_features_is_warned_of():
    mdata = cohort()
    wide = ad.AnnData(np.tile(mdata["rna"].X, (1, 10)), obs=mdata["rna"].obs.copy())
    both = md.MuData({"rna": wide, "adt": mdata["adt"].copy()})
    both.obs = mdata.obs.loc[both.obs_names]
    with pytest.warns(UserWarning, match=r"'rna' has 40 features and 'adt' 3"):
        sst.MAESTRO.setup_mudata(both, "sample", modalities=BOTH)
