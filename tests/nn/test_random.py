"""Numbers of a sample depend on its seed alone; the hash is checked against big integers of plain Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scset_tools.nn import cell_uniform, sample_uniform

WORD = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def reference(seed: int, stream: int, position: int) -> float:
    """Position -1 is the number of the sample itself."""
    key = mix((mix((seed + GAMMA) & WORD) + GAMMA * (stream + 1)) & WORD)
    return (mix((key + GAMMA * (position + 1)) & WORD) >> 11) * 2.0**-53


def test_mix_is_splitmix64():
    # First outputs of the published generator for seed 1234567.
    state, published = 1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for expected in published:
        state = (state + GAMMA) & WORD
        assert mix(state) == expected


@settings(max_examples=60, deadline=None)
@given(
    seeds=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
    size=st.integers(0, 6),
    stream=st.integers(0, 2**40),
)
def test_equal_to_big_integers(seeds: list[int], size: int, stream: int):
    sizes = [(size + i) % 7 for i in range(len(seeds))]
    ptr = torch.tensor(np.concatenate([[0], np.cumsum(sizes)]), dtype=torch.int64)
    seed = torch.tensor(seeds, dtype=torch.int64)
    cells = [reference(s, stream, j) for s, n in zip(seeds, sizes, strict=True) for j in range(n)]
    assert cell_uniform(seed, ptr, stream=stream).tolist() == cells
    assert sample_uniform(seed, stream=stream).tolist() == [reference(s, stream, -1) for s in seeds]


def test_batch_mates_do_not_matter():
    seed = torch.tensor([5, -3, 10**15])
    together = cell_uniform(seed, torch.tensor([0, 4, 4, 9]), stream=2)
    alone = cell_uniform(seed[2:], torch.tensor([0, 5]), stream=2)
    assert torch.equal(together[4:], alone)
    longer = cell_uniform(seed[2:], torch.tensor([0, 50]), stream=2)
    assert torch.equal(longer[:5], alone)
    assert torch.equal(sample_uniform(seed, stream=2)[2:], sample_uniform(seed[2:], stream=2))


@pytest.mark.parametrize("n_cells", [1, 20_000])
def test_uniform(n_cells: int):
    """Along the cells of one seed, and across consecutive seeds."""
    n_samples = 20_000 // n_cells
    ptr = torch.arange(n_samples + 1) * n_cells
    u = cell_uniform(torch.arange(n_samples), ptr, stream=0).numpy()
    assert u.dtype == np.float64
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.01
    # Lag one: neighbours in the sequence do not follow each other.
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.03
    assert len(np.unique(u)) == len(u)


def test_sample_numbers_are_uniform():
    assert stats.kstest(sample_uniform(torch.arange(20_000), stream=3).numpy(), "uniform").pvalue > 0.01


def test_streams_are_uncorrelated():
    ptr = torch.tensor([0, 20_000])
    seed = torch.tensor([7])
    u = torch.stack([cell_uniform(seed, ptr, stream=s) for s in range(5)]).numpy()
    off_diagonal = np.corrcoef(u)[~np.eye(5, dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.03
    assert sample_uniform(seed, stream=0) != sample_uniform(seed, stream=1)


def test_same_on_every_call_and_global_generator_untouched():
    seed, ptr = torch.tensor([1, 2]), torch.tensor([0, 3, 8])
    before = torch.get_rng_state()
    first = cell_uniform(seed, ptr, stream=1)
    torch.rand(3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first, cell_uniform(seed, ptr, stream=1))
    sample_uniform(seed, stream=1)
    assert torch.equal(before, torch.get_rng_state())


def test_no_samples_and_no_cells():
    empty = torch.zeros(0, dtype=torch.int64)
    assert cell_uniform(empty, torch.tensor([0]), stream=0).shape == (0,)
    assert cell_uniform(torch.tensor([3]), torch.tensor([0, 0]), stream=0).shape == (0,)
    assert sample_uniform(empty, stream=0).shape == (0,)


def test_errors():
    seed = torch.tensor([1, 2])
    with pytest.raises(TypeError, match="seed must be int64"):
        sample_uniform(seed.float(), stream=0)
    with pytest.raises(ValueError, match="stream must be 0 or larger, got -1"):
        sample_uniform(seed, stream=-1)
    with pytest.raises(ValueError, match="one entry more than seed, got 2 and 2"):
        cell_uniform(seed, torch.tensor([0, 4]), stream=0)
