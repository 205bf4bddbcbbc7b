"""Loaders over the parts of a split."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from scvi import settings
from torch.utils.data import SequentialSampler

from scset_tools.data._splitter import SampleDataSplitter, sample_loader


@pytest.fixture
def manager(adata, register):
    return register(adata, labels_key="condition")


def test_the_split_names_samples_and_holds_rows_of_cells(adata, manager):
    splitter = SampleDataSplitter(manager, train_size=0.5, validation_size=0.25, seed=0)
    train, validation, test = splitter.names()
    assert sorted(train + validation + test) == ["a", "b", "c", "d"]
    assert (splitter.n_train, splitter.n_val) == (2, 1)
    for names, rows in ((train, splitter.train_idx), (validation, splitter.val_idx), (test, splitter.test_idx)):
        assert sorted(rows) == np.flatnonzero(adata.obs["sample"].isin(names)).tolist()


def test_loaders_cover_their_parts(manager):
    splitter = SampleDataSplitter(manager, train_size=0.5, validation_size=0.25, seed=0, batch_size=1)
    for loader, names in zip(
        (splitter.train_dataloader(), splitter.val_dataloader(), splitter.test_dataloader()),
        splitter.names(),
        strict=True,
    ):
        assert len(loader) == len(names)
        seen = [str(splitter.index.names[int(batch.sample[0])]) for batch in loader]
        assert sorted(seen) == names
        assert not isinstance(loader.sampler, SequentialSampler)


def test_parts_without_samples_have_no_loader(manager):
    splitter = SampleDataSplitter(manager, train_size=1.0)
    assert splitter.val_dataloader() is None
    assert splitter.test_dataloader() is None
    assert splitter.names()[0] == ["a", "b", "c", "d"]
    assert is_overridden("val_dataloader", splitter)


def test_named_parts(manager):
    splitter = SampleDataSplitter(manager, external_indexing=[["d", "a"], ["b"]])
    assert splitter.names() == (["d", "a"], ["b"], [])
    splitter = SampleDataSplitter(manager, external_indexing=[np.array(["c"]), None, ["a"]])
    assert splitter.names() == (["c"], [], ["a"])
    with pytest.raises(ValueError, match=r"names 1 samples twice: \['a'\]"):
        SampleDataSplitter(manager, external_indexing=[["a", "c"], ["a"]])
    with pytest.raises(ValueError, match="leaves nothing to train on: its first list is empty"):
        SampleDataSplitter(manager, external_indexing=[[], ["a"]])
    with pytest.raises(ValueError, match="training, validation and test samples, but was given 4 lists"):
        SampleDataSplitter(manager, external_indexing=[["a"], ["b"], ["c"], ["d"]])
    with pytest.raises(KeyError, match=r"1 of 1 samples are not in the data: \['e'\]"):
        SampleDataSplitter(manager, external_indexing=[["e"]])


def test_names_of_one_split_give_it_again_for_integer_samples(adata, register):
    adata.obs["sample"] = adata.obs["sample"].map({"a": 7, "b": 8, "c": 9, "d": 10})
    manager = register(adata)
    first = SampleDataSplitter(manager, train_size=0.5, seed=3)
    again = SampleDataSplitter(manager, external_indexing=first.names())
    assert first.names() == again.names()
    assert all(isinstance(n, str) for n in first.names()[0])


def test_groups_are_never_cut(adata, manager):
    splitter = SampleDataSplitter(manager, train_size=0.5, groups_key="study", seed=1)
    study = adata.obs.groupby("sample")["study"].first()
    train, validation, _ = splitter.names()
    assert set(study[train]).isdisjoint(study[validation])
    assert len(train) == len(validation) == 2
    with pytest.raises(KeyError, match="'hospital' is not a column"):
        SampleDataSplitter(manager, groups_key="hospital")
    with pytest.raises(ValueError, match=r"adata.obs\['batch'\] must have one value per sample"):
        SampleDataSplitter(manager, groups_key="batch")
    adata.obs["study"] = adata.obs["study"].where(adata.obs["sample"] != "a", None)
    with pytest.raises(ValueError, match=r"adata.obs\['study'\] is missing for 5 of 25 cells"):
        SampleDataSplitter(manager, groups_key="study")


def test_strata_are_the_labels(manager, adata, register):
    splitter = SampleDataSplitter(manager, train_size=0.5, stratify=True, seed=4)
    condition = adata.obs.groupby("sample")["condition"].first()
    for names in splitter.names()[:2]:
        assert sorted(condition[names]) == ["case", "control"]
    unlabelled = adata.copy()  # a manager does not hold its cells
    with pytest.raises(ValueError, match="stratify=True needs labels: give `labels_key`"):
        SampleDataSplitter(register(unlabelled), stratify=True)


def test_seed_comes_from_the_argument_then_from_the_settings_then_from_chance(manager, monkeypatch):
    monkeypatch.setattr(type(settings), "seed", 5, raising=False)
    assert SampleDataSplitter(manager, seed=3).seed == 3
    assert SampleDataSplitter(manager).seed == 5
    monkeypatch.setattr(type(settings), "seed", None, raising=False)
    assert len({SampleDataSplitter(manager).seed for _ in range(5)}) == 5


def test_training_draws_anew_each_epoch_and_validation_never(manager):
    splitter = SampleDataSplitter(manager, external_indexing=[["c"], ["d"]], n_cells=4, seed=0)
    train, validation = splitter.train_dataloader(), splitter.val_dataloader()
    rows = {"train": [], "validation": []}
    for epoch in range(3):
        train.sampler.set_epoch(epoch)
        validation.sampler.set_epoch(epoch)
        rows["train"].append(tuple(next(iter(train)).rows.tolist()))
        rows["validation"].append(tuple(next(iter(validation)).rows.tolist()))
    assert len(set(rows["train"])) == 3
    assert len(set(rows["validation"])) == 1
    assert len(rows["train"][0]) == 4


def test_loaders_leave_the_global_generator_alone(manager):
    splitter = SampleDataSplitter(manager, train_size=0.5, seed=0)
    torch.manual_seed(0)
    want = torch.rand(3)
    torch.manual_seed(0)
    for _ in range(2):
        list(splitter.train_dataloader())
    assert torch.equal(torch.rand(3), want)


def test_limits_of_a_batch(manager):
    splitter = SampleDataSplitter(manager, train_size=1.0, batch_size=3, max_cells_per_batch=13, seed=0)
    batches = list(splitter.train_dataloader())
    assert all(len(b.x) <= 13 and b.n_samples <= 3 for b in batches)
    assert sum(b.n_samples for b in batches) == 4


def test_workers_change_nothing(manager):
    def batches(**arguments):
        splitter = SampleDataSplitter(manager, train_size=1.0, batch_size=2, n_cells=4, seed=0, **arguments)
        return [(b.rows.tolist(), b.seed.tolist()) for b in splitter.train_dataloader()]

    assert batches() == batches(num_workers=1)


class Trainer:
    """What the splitter asks of Lightning's trainer, for one of several processes."""

    def __init__(self, world_size, global_rank, from_first=None, n_epochs_done=0):
        self.world_size, self.global_rank = world_size, global_rank
        self.from_first, self.strategy = from_first, self
        progress = SimpleNamespace(current=SimpleNamespace(processed=n_epochs_done))
        self.fit_loop = SimpleNamespace(epoch_progress=progress)

    def broadcast(self, value, src=0):
        return value if self.from_first is None else self.from_first


def test_processes_share_training_samples_and_each_validates_on_all(manager):
    seen, validated = [], []
    for rank in range(2):
        splitter = SampleDataSplitter(manager, external_indexing=[["a", "b", "c"], ["d"]], seed=0)
        splitter.trainer = Trainer(2, rank)
        splitter.setup("fit")
        seen += [s for b in splitter.train_dataloader() for s in b.sample.tolist()]
        validated.append([s for b in splitter.val_dataloader() for s in b.sample.tolist()])
    assert sorted(seen) == [0, 1, 2]
    assert validated == [[3], [3]]


def test_processes_take_split_and_seed_of_the_first(manager):
    first = SampleDataSplitter(manager, train_size=0.5, seed=0)
    other = SampleDataSplitter(manager, external_indexing=[["a"]], seed=99)
    other.trainer = Trainer(2, 1, from_first=(first._parts, first.seed))
    other.setup("fit")
    assert other.names() == first.names()
    assert other.seed == first.seed
    assert sorted(other.train_idx) == sorted(first.train_idx)
    alone = SampleDataSplitter(manager, train_size=0.5, seed=1)
    alone.trainer = Trainer(1, 0, from_first=(first._parts, first.seed))
    alone.setup("fit")
    assert alone.seed == 1  # one process keeps its own
    assert {b.sample.numel() for b in alone.train_dataloader()} == {2}


def test_a_resumed_run_starts_in_its_epoch_with_workers_too(manager):
    splitter = SampleDataSplitter(manager, train_size=1.0, batch_size=2, n_cells=4, seed=0, num_workers=1)
    splitter.trainer = Trainer(1, 0, n_epochs_done=3)
    loader = splitter.train_dataloader()
    iterator = iter(loader)  # workers ask for their first batches at once
    loader.sampler.set_epoch(3)
    rows = [b.rows.tolist() for b in iterator]
    dataset = splitter.train_dataloader().dataset
    by_hand = sample_loader(dataset, splitter.train_samples, batch_size=2, shuffle=True)
    by_hand.sampler.set_epoch(3)
    assert rows == [b.rows.tolist() for b in by_hand]


def test_mlflow_finds_what_it_reads(manager):
    splitter = SampleDataSplitter(manager, train_size=0.5, batch_size=3, num_workers=0)
    assert splitter.data_loader_kwargs == {"batch_size": 3, "num_workers": 0}
    assert (splitter.train_size, splitter.n_train, splitter.n_val) == (0.5, 2, 2)


def test_cohorts_have_the_same_share_of_training(adata, register):
    adata.obs["cohort"] = np.where(adata.obs["sample"] == "a", "x", "y")
    manager = register(adata)
    splitter = SampleDataSplitter(manager, seed=0, batch_size=2, balance_key="cohort")
    counts = {}
    for epoch in range(8):
        loader = splitter.train_dataloader()
        loader.sampler.set_epoch(epoch)
        names = [str(splitter.index.names[i]) for batch in loader for i in batch.sample.tolist()]
        assert len(names) == 4
        assert names.count("a") == 2
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    assert set(counts) == {"a", "b", "c", "d"}
    adata.obs["cohort"] = adata.obs["batch"].to_numpy()
    with pytest.raises(ValueError, match=r"adata.obs\['cohort'\] must have one value per sample"):
        SampleDataSplitter(manager, balance_key="cohort")
    with pytest.raises(KeyError, match="'site' is not a column"):
        SampleDataSplitter(manager, balance_key="site")


def test_a_sample_that_comes_again_is_drawn_anew(adata, register):
    adata.obs["cohort"] = np.where(adata.obs["sample"] == "c", "x", "y")
    splitter = SampleDataSplitter(register(adata), seed=0, batch_size=2, n_cells=4, balance_key="cohort")
    c = list(splitter.index.names).index("c")
    drawn = []
    for batch in splitter.train_dataloader():
        assert len(set(batch.sample.tolist())) == len(batch.sample)  # not beside itself
        for i in (batch.sample == c).nonzero().ravel().tolist():
            drawn.append((batch.rows[batch.ptr[i] : batch.ptr[i + 1]].tolist(), int(batch.seed[i])))
    assert len(drawn) == 2
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] != drawn[1][1]  # what a module draws for it differs as well
