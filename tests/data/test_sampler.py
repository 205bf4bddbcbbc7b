"""Batches of samples: the same number on every rank and in every epoch, and every sample once."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils.data import DataLoader

from scset_tools.data._sampler import SampleBatchSampler

SIZES = np.random.default_rng(0).integers(20, 400, 40)
SAMPLES = np.arange(3, 26)  # 23 of the 40 samples


def ranks(world: int, **arguments) -> list[SampleBatchSampler]:
    arguments = {"batch_size": 4, "shuffle": True, **arguments}
    return [SampleBatchSampler(SAMPLES, SIZES, num_replicas=world, rank=r, **arguments) for r in range(world)]


def epoch_of(sampler: SampleBatchSampler, epoch: int) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return [batch for _, batch in sampler]


@pytest.mark.parametrize("max_cells", [None, 700, 50])
@pytest.mark.parametrize("world", [1, 2, 3, 5, 30])
def test_every_sample_once_per_epoch_in_equally_many_batches_on_each_rank(world, max_cells):
    samplers = ranks(world, max_cells=max_cells)
    lengths = {len(s) for s in samplers}
    assert len(lengths) == 1
    for epoch in range(30):
        plans = [epoch_of(s, epoch) for s in samplers]
        assert {len(p) for p in plans} == lengths == {len(s) for s in samplers}
        batches = [b for p in plans for b in p]
        seen = [i for b in batches for i in b]
        assert set(seen) == set(SAMPLES)
        if len(batches) <= 23:
            assert len(seen) == 23
        else:  # more batches than samples: some are repeated, none more often than needed
            assert len(seen) == len(batches)
            assert max(np.bincount(seen)) == -(-len(seen) // 23)
        assert all(len(b) <= 4 for b in batches)
        if max_cells is not None:
            assert all(SIZES[b].sum() <= max_cells or len(b) == 1 for b in batches)


def test_one_process_without_a_limit_of_cells_fills_its_batches():
    (sampler,) = ranks(1)
    assert [len(b) for b in epoch_of(sampler, 0)] == [4, 4, 4, 4, 4, 3]
    (sampler,) = ranks(1, shuffle=False)
    assert [i for b in epoch_of(sampler, 0) for i in b] == SAMPLES.tolist()
    assert epoch_of(sampler, 0) == epoch_of(sampler, 5)


def test_the_heaviest_batches_are_cut():
    sizes = np.array([1, 1, 9, 9, 2, 2, 3, 3])
    samplers = [SampleBatchSampler(np.arange(8), sizes, batch_size=2, num_replicas=3, rank=r) for r in range(3)]
    batches = sorted(b for s in samplers for _, b in s)
    assert batches == [[0, 1], [2], [3], [4, 5], [6], [7]]


def test_order_is_that_of_a_generator_of_seed_and_epoch():
    (sampler,) = ranks(1, seed=5)
    for epoch in (0, 1, 7):
        order = np.random.default_rng((5, epoch)).permutation(SAMPLES)
        assert [i for b in epoch_of(sampler, epoch) for i in b] == order.tolist()
        assert {e for e, _ in sampler} == {epoch}
    (other,) = ranks(1, seed=6)
    assert epoch_of(other, 0) != epoch_of(sampler, 0)


def test_without_shuffling_the_epoch_stays_zero():
    (sampler,) = ranks(1, shuffle=False)
    sampler.set_epoch(4)
    assert {e for e, _ in sampler} == {0}  # so that validation always sees the same cells


def test_the_epoch_is_read_at_the_first_batch():
    (sampler,) = ranks(1)
    iterator = iter(sampler)
    sampler.set_epoch(3)
    assert next(iterator)[0] == 3


def test_a_loader_hands_batches_through():
    class Echo:
        def __getitem__(self, key):
            return key

    (sampler,) = ranks(1)
    loader = DataLoader(Echo(), sampler=sampler, batch_size=None)
    assert len(loader) == 6
    assert [samples for _, samples in loader] == epoch_of(sampler, 0)


def test_no_samples_no_batches():
    sampler = SampleBatchSampler(np.zeros(0, int), SIZES, num_replicas=2, shuffle=True, max_cells=10)
    assert len(sampler) == 0
    assert list(sampler) == []


def test_groups_have_the_same_share_of_an_epoch():
    samples, groups = np.arange(20), np.array([0] * 15 + [1] * 5)
    sampler = SampleBatchSampler(samples, np.full(20, 10), batch_size=4, shuffle=True, seed=1, groups=groups)
    seen = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        batches = [batch for _, batch in sampler]
        assert len(batches) == len(sampler) == 5
        assert all(len({n % 20 for n in batch}) == 4 for batch in batches)  # and is in another batch
        numbers = np.concatenate(batches)
        assert len(set(numbers)) == 20  # a sample that comes again has a number, and with it draws, of its own
        flat = numbers % 20
        assert np.bincount(groups[flat]).tolist() == [10, 10]
        assert np.bincount(flat, minlength=20)[15:].tolist() == [2] * 5
        assert np.bincount(flat, minlength=20)[:15].max() == 1
        seen.append(set(flat[groups[flat] == 0]))
    assert set.union(*seen) == set(range(15))  # others in each epoch
    assert seen[0] != seen[1]


def test_a_rest_is_dealt_out():
    groups = np.array([0, 0, 0, 0, 0, 1, 2])
    sampler = SampleBatchSampler(np.arange(7), np.ones(7), batch_size=3, shuffle=True, groups=groups)
    assert sorted(np.bincount(groups[np.concatenate([b for _, b in sampler]) % 7])) == [2, 2, 3]
