"""A "sample" that holds several: told where a column with a usual name says so, and nowhere else."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scset_tools as sst
from scset_tools._units import warn_of_several_samples_in_one

N_SAMPLES, N_CELLS = 12, 20


def make_obs(**columns: object) -> pd.DataFrame:
    """Cells of 12 samples, of which two are of one donor, and six of one condition; other columns by sample or by cell."""
    of = np.repeat(np.arange(N_SAMPLES), N_CELLS)
    obs = pd.DataFrame({"condition": np.where(of < 6, "a", "b"), "cell_type": np.arange(len(of)) % 5})
    for name, values in columns.items():
        values = pd.Series(values)
        obs[name] = (values.iloc[of] if len(values) == N_SAMPLES else values).to_numpy()
    return obs


def messages(obs: pd.DataFrame, sample_key: str) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_several_samples_in_one(obs, sample_key)
    return [str(w.message) for w in caught]


SAMPLES = [f"s{i}" for i in range(N_SAMPLES)]
PAIRS = np.arange(N_SAMPLES) // 2
CROSSED = np.arange(N_SAMPLES) % 6
CELLS = np.arange(N_SAMPLES * N_CELLS)


@pytest.mark.parametrize(
    ("columns", "sample_key", "told"),
    [
        pytest.param({"sample": SAMPLES}, "condition", ["2", "6", "12", "sample_key='sample'"], id="samples"),
        pytest.param({"Sample_ID": SAMPLES}, "condition", ["sample_key='Sample_ID'"], id="sample-id"),
        pytest.param({"orig.ident": SAMPLES}, "condition", ["sample_key='orig.ident'"], id="seurat"),
        pytest.param({"donor_id": PAIRS}, "condition", ["3 of the 6", "sample_key='donor_id'"], id="donors"),
        pytest.param({"library": SAMPLES}, "condition", ["sample_key='library'"], id="libraries"),
        pytest.param({"FCS file": SAMPLES}, "condition", ["sample_key='FCS file'"], id="files"),
        pytest.param({"donor": PAIRS, "sample": SAMPLES}, "condition", ["sample_key='sample'"], id="samples-first"),
        pytest.param(
            {"patient": CROSSED}, "condition", ["6 of the 6", "obs['patient'].astype(str) + '_'"], id="crossed"
        ),
        pytest.param({"pool": CROSSED // 3, "subject": SAMPLES}, "pool", ["6 of the 12"], id="pools"),
        pytest.param({"sample": PAIRS // 3, "donor": SAMPLES}, "sample", ["sample_key='donor'"], id="donors-of-pools"),
        pytest.param({"donor": PAIRS}, "cell_type", ["5 values", "sample_key='donor'"], id="cell-types"),
        pytest.param({"leiden": CELLS % 9, "sample": PAIRS}, "leiden", ["9 values"], id="clusters"),
    ],
)
def test_several_samples_in_one_are_told_once(columns: dict, sample_key: str, told: list[str]) -> None:
    (message,) = messages(make_obs(**columns), sample_key)
    assert repr(sample_key) in message
    for part in told:
        assert part in message
    as_category = make_obs(**columns)
    as_category = as_category.astype(dict.fromkeys(as_category.columns, "category"))
    assert messages(as_category, sample_key) == [message]


@pytest.mark.parametrize(
    ("columns", "sample_key"),
    [
        pytest.param({"sample": SAMPLES, "donor": PAIRS}, "sample", id="samples-of-donors"),
        pytest.param({"sample": SAMPLES, "donor": PAIRS}, "donor", id="donors-of-samples"),
        pytest.param({"sample": PAIRS, "library": SAMPLES}, "sample", id="libraries-of-a-sample"),
        pytest.param({"donor_condition": PAIRS, "well": SAMPLES}, "donor_condition", id="wells-of-a-donor"),
        pytest.param({"donor_age": SAMPLES}, "condition", id="another-name"),
        pytest.param({"well": [f"w{i}" for i in CELLS]}, "condition", id="a-well-a-cell"),
        pytest.param({"sample": ["s0"] * 6 + SAMPLES[6:]}, "condition", id="one-of-a-value"),
        pytest.param({"sample": [None, *SAMPLES[1:]]}, "condition", id="missing"),
        pytest.param({"batch": CROSSED, "study": SAMPLES}, "condition", id="no-such-column"),
        pytest.param({"library": CROSSED}, "condition", id="libraries-across"),
        pytest.param({"group": SAMPLES, "donor": PAIRS}, "group", id="finer-than-donors"),
    ],
)
def test_what_is_usual_is_not_told(columns: dict, sample_key: str) -> None:
    assert messages(make_obs(**columns), sample_key) == []


@pytest.mark.parametrize("model", ["MAESTRO", "ScSet", "PaSCient", "SelfGuidedMAE"])
def test_every_model_tells_it_at_set_up_and_not_again(model: str) -> None:
    cls = getattr(sst, model)
    obs = make_obs(donor=PAIRS)
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(np.random.default_rng(0).poisson(2.0, size=(len(obs), 6)).astype(np.float32) + 1, obs=obs)
    with pytest.warns(
        UserWarning, match=r"obs\['condition'\] has the cells of 3 of the 6 values of adata.obs\['donor'\]"
    ):
        cls.setup_anndata(adata, "condition")
    registry = cls._get_most_recent_anndata_manager(adata, required=True).registry
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cls.setup_anndata(adata.copy(), "condition", source_registry=registry)
        cls.setup_anndata(adata.copy(), "donor")


COHORTS = {
    "bcrxl_cytof_bodenmiller_full": "sample",
    "hiv_flow_flowtype": "sample",
    "ipf_lung_idesc": "subject",
    "kang_ifnb_distinct": "sample_id",
    "krieg_melanoma_cytof_imubac": "sample",
    "melanoma_ici_daseq_pca": "sample",
    "pancreas_atlas_hormone2cell": "donor_id",
    "tnbc_mibi_keren_scfeatures": "sample",
}


@pytest.mark.parametrize("name", COHORTS)
def test_real_cohorts_with_their_samples_are_not_told(shared_data: Path, name: str) -> None:
    obs = ad.read_h5ad(shared_data / f"{name}.h5ad", backed="r").obs
    assert messages(obs, COHORTS[name]) == []
