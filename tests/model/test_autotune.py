"""Ray Tune through scvi-tools, two trials; ray and scib-metrics are too heavy for everyone's environment."""

from __future__ import annotations

import pytest
from test_contract import MODELS, make_cohort

for _name in ("ray", "hyperopt", "scib_metrics"):
    pytest.importorskip(_name, reason=f"scvi.autotune needs {_name}: pip install 'scvi-tools[autotune]'")


@pytest.fixture(scope="module", autouse=True)
def ray():
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", MODELS)
def test_two_trials(kind, tmp_path):
    from ray import tune
    from scvi import autotune

    cls, arguments = MODELS[kind][:2]
    adata = make_cohort()
    cls.setup_anndata(adata, "sample", labels_key="condition", batch_key="batch")
    rates = [1e-3, 1e-2]
    found = autotune.run_autotune(
        cls,
        adata,
        metrics="loss_validation",
        mode="min",
        search_space={
            "model_params": {name: tune.choice([value]) for name, value in arguments.items()},
            "train_params": {
                "max_epochs": 1,
                "train_size": 0.75,
                "batch_size": 4,
                "accelerator": "cpu",
                "plan_kwargs": {"lr": tune.grid_search(rates)},
            },
        },
        num_samples=1,
        scheduler="fifo",
        searcher="random",
        resources={"cpu": 1},
        logging_dir=str(tmp_path),
        ignore_reinit_error=True,
        seed=0,
    )
    results = list(found.result_grid)
    assert len(results) == 2
    assert sorted(trial.config["train_params"]["plan_kwargs"]["lr"] for trial in results) == rates
    assert all(trial.metrics["loss_validation"] == trial.metrics["loss_validation"] for trial in results)
