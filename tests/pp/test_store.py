"""A cohort in one file: its cells are those of its sources, by sample, whatever these are stored as."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

import scset_tools as sst
from scset_tools import _lock
from scset_tools.data import _features, _known
from scset_tools.data._rows import RowReader
from scset_tools.pp import _store_run, _store_writer

pytestmark = pytest.mark.platform

GENES = [f"g{i}" for i in range(12)]


def cells(seed: int, samples: list[str], n: int = 60, genes: list[str] = GENES) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    x = sparse.csr_matrix(rng.poisson(0.6, (n, len(genes))).astype(np.float32))
    obs = pd.DataFrame(
        {"sample": rng.choice(samples, n), "depth": rng.random(n), "kind": pd.Categorical(rng.choice(["a", "b"], n))},
        index=[f"c{seed}_{i}" for i in range(n)],
    )
    return ad.AnnData(x, obs, pd.DataFrame(index=genes))


def files(folder, adatas, suffixes=("h5ad", "zarr")) -> list:
    paths = []
    for i, adata in enumerate(adatas):
        path = folder / f"part{i}.{suffixes[i % len(suffixes)]}"
        (adata.write_zarr if path.suffix == ".zarr" else adata.write_h5ad)(path)
        paths.append(path)
    return paths


def dense(x) -> np.ndarray:
    x = x[:] if not isinstance(x, np.ndarray) else x
    return x.toarray() if sparse.issparse(x) else np.asarray(x)


@pytest.fixture
def small_pieces(monkeypatch):
    """Many blocks, windows and shards in a small cohort."""
    monkeypatch.setattr(_store_writer, "CHUNK", 16)
    monkeypatch.setattr(_store_writer, "CHUNKS_PER_SHARD", 2)
    monkeypatch.setattr(_store_run, "ROWS_AT_ONCE", 8)
    monkeypatch.setattr(_store_run, "VALUES_AT_ONCE", 30)
    return {"max_bytes": 40 * _store_run.BYTES_PER_VALUE, "progress": False}


@pytest.mark.parametrize("is_sparse", [True, False])
def test_the_store_holds_the_cells_of_all_sources_by_sample(tmp_path, small_pieces, is_sparse):
    parts = [cells(0, ["s2", "s0"]), cells(1, ["s1"], genes=GENES[::-1]), cells(2, ["s3", "s4"])]
    if not is_sparse:
        for part in parts:
            part.X = part.X.toarray()
    path = sst.pp.write_store(files(tmp_path, parts), tmp_path / "cohort.zarr", sample_key="sample", **small_pieces)
    store = sst.pp.read_store(path)
    whole = ad.concat(parts)
    assert list(store.obs["sample"]) == sorted(whole.obs["sample"])
    assert store.var_names.tolist() == GENES
    np.testing.assert_array_equal(dense(store.X), dense(whole[store.obs_names, GENES].X))
    assert store.obs["source"].astype(str).unique().tolist() == ["part0", "part1", "part2"]
    known = store.uns["store"]
    expected = dense(whole[store.obs_names, GENES].X).astype(float)
    for i, name in enumerate(known["samples"]):
        rows = slice(known["indptr"][i], known["indptr"][i + 1])
        assert set(store.obs["sample"].iloc[rows]) == {name}
    assert bool(known["is_counts"])
    np.testing.assert_allclose(known["feature_mean"], expected.mean(0), rtol=1e-6)
    np.testing.assert_allclose(known["feature_sd"], expected.std(0), rtol=1e-6)
    np.testing.assert_allclose(store.obs["store_total"], expected.sum(1))
    np.testing.assert_array_equal(store.obs["store_n_features"], (expected != 0).sum(1))
    # an ordinary file of anndata
    np.testing.assert_array_equal(dense(ad.read_zarr(path).X), expected)


@pytest.mark.parametrize(("join", "genes"), [("inner", GENES[3:8]), ("outer", [*GENES[:8], *GENES[8:]])])
def test_features_are_joined_by_name(tmp_path, small_pieces, join, genes):
    parts = [cells(0, ["a"], genes=GENES[:8]), cells(1, ["b"], genes=GENES[3:])]
    path = sst.pp.write_store(parts, tmp_path / "c.zarr", sample_key="sample", join=join, **small_pieces)
    store = sst.pp.read_store(path)
    assert store.var_names.tolist() == genes
    expected = ad.concat(parts, join=join, fill_value=0)[store.obs_names, genes]
    np.testing.assert_array_equal(dense(store.X), dense(expected.X))


def test_models_learn_the_same_from_the_store_as_from_memory(tmp_path, small_pieces):
    adata = sst.datasets.perturbation_cohort(n_samples=6, n_cells=(20, 40))
    path = sst.pp.write_store(adata, tmp_path / "c.zarr", sample_key="sample", **small_pieces)
    vectors = []
    for data in (adata, sst.pp.read_store(path)):
        sst.MAESTRO.setup_anndata(data, sample_key="sample")
        model = sst.MAESTRO(data, n_hidden=16, n_latent=8, n_inducing=4, n_cells=16, random_state=0)
        model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu", seed=0)
        vectors.append(model.get_sample_representation().sort_index())
    pd.testing.assert_frame_equal(*vectors, atol=1e-5)


def test_set_up_trusts_the_store_and_reading_does_not(tmp_path, small_pieces, monkeypatch):
    path = sst.pp.write_store(cells(0, ["a", "b"]), tmp_path / "c.zarr", sample_key="sample", **small_pieces)
    store = sst.pp.read_store(path)
    looked = []
    monkeypatch.setattr(_features.RowReader, "unchecked_chunks", lambda reader: looked.append(reader) or iter(()))
    sst.ScSet.setup_anndata(store, sample_key="sample")
    assert not looked
    has_zero_cells = bool((store.obs["store_n_features"] == 0).any())
    sst.MAESTRO.setup_anndata(store, sample_key="sample")  # which takes no cells without a signal
    assert bool(looked) == has_zero_cells
    values = zarr.open_group(path)["X/data"]
    values[3] = np.nan
    changed = sst.pp.read_store(path)
    sst.ScSet.setup_anndata(changed, sample_key="sample")
    with pytest.raises(ValueError, match="not finite"):
        sst.ScSet(changed, n_hidden=8, n_latent=2)


@pytest.mark.parametrize("is_sparse", [True, False])
def test_a_stopped_run_goes_on_and_gives_the_same_file(tmp_path, small_pieces, monkeypatch, is_sparse):
    parts = [cells(0, ["a", "b"]), cells(1, ["c", "d"])]
    if not is_sparse:
        for part in parts:
            part.X = part.X.toarray()
    sources = files(tmp_path, parts)
    whole = sst.pp.read_store(sst.pp.write_store(sources, tmp_path / "w.zarr", sample_key="sample", **small_pieces))
    path, blocks = tmp_path / "c.zarr", []
    write = _store_run.StoreRun._block

    def stopping(run, lo, hi):
        blocks.append(lo)
        if len(blocks) == 4:
            raise KeyboardInterrupt("stop")
        return write(run, lo, hi)

    monkeypatch.setattr(_store_run.StoreRun, "_block", stopping)
    with pytest.raises(KeyboardInterrupt, match="stop"):
        sst.pp.write_store(sources, path, sample_key="sample", **small_pieces)
    assert not path.exists()
    sst.pp.write_store(sources, path, sample_key="sample", **small_pieces)
    assert blocks[4] == blocks[3]  # not from the beginning
    again = sst.pp.read_store(path)
    np.testing.assert_array_equal(dense(again.X), dense(whole.X))
    pd.testing.assert_frame_equal(again.obs, whole.obs)
    np.testing.assert_allclose(again.uns["store"]["feature_sd"], whole.uns["store"]["feature_sd"])


@pytest.mark.parametrize("is_sparse", [True, False])
def test_what_is_kept_for_a_later_run_is_of_each_block_alone(tmp_path, small_pieces, monkeypatch, is_sparse):
    """Its size, over all blocks, is that of the cohort and not its square."""
    sizes = []
    write = _store_run.StoreRun._write_state

    def noting(run, done, rows):
        write(run, done, rows)
        sizes.append(sum(len(v) for name in ("state.npz", f"block{done:06d}.npz") for v in kept(run, name)))

    def kept(run, name):
        found = _store_run._loaded(run._progress / name)
        return [v for key, v in found.items() if key not in ("mean", "square") and v.ndim]

    monkeypatch.setattr(_store_run.StoreRun, "_write_state", noting)
    adata = cells(0, ["a", "b"], n=400)
    if not is_sparse:
        adata.X = adata.X.toarray()
    path = sst.pp.write_store(adata, tmp_path / "c.zarr", sample_key="sample", **small_pieces)
    assert len(sizes) > 30
    assert max(sizes[-5:]) <= 2 * max(sizes[:5])
    assert not (path / "progress").exists()


def test_another_run_does_not_go_on_from_a_stopped_one(tmp_path, small_pieces, monkeypatch):
    path = tmp_path / "c.zarr"
    write = _store_run.StoreRun._block
    monkeypatch.setattr(
        _store_run.StoreRun,
        "_block",
        lambda run, lo, hi: write(run, lo, hi) if lo < 20 else (_ for _ in ()).throw(OSError("disk")),
    )
    with pytest.raises(OSError, match="disk"):
        sst.pp.write_store(files(tmp_path, [cells(0, ["a", "b"])]), path, sample_key="sample", **small_pieces)
    monkeypatch.setattr(_store_run.StoreRun, "_block", write)
    other = cells(3, ["x", "y"])
    store = sst.pp.read_store(sst.pp.write_store(other, path, sample_key="sample", **small_pieces))
    np.testing.assert_array_equal(dense(store.X), dense(other[store.obs_names].X))


def test_names_that_several_sources_use(tmp_path, small_pieces):
    parts = [cells(0, ["a", "b"]), cells(1, ["b", "c"])]
    parts[1].obs_names = parts[0].obs_names
    options = {"progress": False}
    with pytest.raises(ValueError, match=r"1 samples have the same name in several sources: \['b \(0, 1\)'\]"):
        sst.pp.write_store(parts, tmp_path / "c.zarr", sample_key="sample", **options)
    merged = sst.pp.read_store(
        sst.pp.write_store(parts, tmp_path / "m.zarr", sample_key="sample", same_names="merge", **options)
    )
    assert list(merged.uns["store"]["samples"]) == ["a", "b", "c"]
    assert merged.obs_names.is_unique
    apart = sst.pp.read_store(
        sst.pp.write_store(parts, tmp_path / "s.zarr", sample_key=("source", "sample"), **options)
    )
    assert list(apart.uns["store"]["samples"]) == ["0/a", "0/b", "1/b", "1/c"]


def test_what_is_wrong_is_named(tmp_path):
    good = cells(0, ["a"])
    missing = good.copy()
    missing.X[3, 2] = np.nan
    lists = good.copy()
    lists.obs["list"] = [[1]] * len(lists)
    for sources, options, error, words in (
        ([], {}, ValueError, "sources is empty"),
        (good, {"sample_key": "donor"}, KeyError, "has no column 'donor'"),
        (good, {"layer": "counts"}, KeyError, "has no layer 'counts'"),
        (missing, {}, ValueError, r"first: cell 'c0_3', feature 'g2'"),
        ([good, cells(1, ["b"], genes=["x", "y"])], {}, ValueError, "no feature in common"),
        (tmp_path / "no.h5ad", {}, FileNotFoundError, "no.h5ad"),
        (good, {"join": "left"}, ValueError, "join"),
    ):
        with pytest.raises(error, match=words):
            sst.pp.write_store(sources, tmp_path / "c.zarr", progress=False, **{"sample_key": "sample", **options})
    with pytest.warns(UserWarning, match=r"left out: \['list'\]"):
        sst.pp.write_store(lists, tmp_path / "l.zarr", sample_key="sample", progress=False)
    with pytest.raises(FileExistsError, match=r"l\.zarr"):
        sst.pp.write_store(good, tmp_path / "l.zarr", sample_key="sample", progress=False)
    with pytest.raises(FileNotFoundError, match="nothing"):
        sst.pp.read_store(tmp_path / "nothing")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(ValueError, match=r"empty\.zarr"):
        sst.pp.read_store(tmp_path / "empty.zarr")


def test_cells_in_memory_begin_anew(tmp_path, small_pieces, monkeypatch):
    """Of the same shape and with as many values in each row, but not the cells of the run that was stopped."""
    path, adata = tmp_path / "c.zarr", cells(0, ["a", "b"])
    write = _store_run.StoreRun._block

    def stopping(run, lo, hi):
        if lo > 20:
            raise OSError("disk")
        return write(run, lo, hi)

    monkeypatch.setattr(_store_run.StoreRun, "_block", stopping)
    with pytest.raises(OSError, match="disk"):
        sst.pp.write_store(adata, path, sample_key="sample", **small_pieces)
    monkeypatch.setattr(_store_run.StoreRun, "_block", write)
    adata.X = adata.X * 2
    store = sst.pp.read_store(sst.pp.write_store(adata, path, sample_key="sample", **small_pieces))
    np.testing.assert_array_equal(dense(store.X), dense(adata[store.obs_names].X))


def test_the_store_answers_for_what_it_knows(tmp_path, small_pieces, monkeypatch):
    """Means, spreads and signs are those of the cells, and nothing is read for them."""
    adata = cells(0, ["a", "b"], n=80)
    x = adata.X.toarray() + 0.0
    x[:, 2] = 3.1  # the same everywhere
    x[:, 3] += 1e4  # far from zero
    adata.X = sparse.csr_matrix(x)
    store = sst.pp.read_store(sst.pp.write_store(adata, tmp_path / "c.zarr", sample_key="sample", **small_pieces))
    expected = _features.feature_moments(adata.X)
    assert expected[1][0, 2] == 1
    monkeypatch.setattr(_features.RowReader, "chunks", lambda *args: pytest.fail("the values were read"))
    got = _features.feature_moments(store.X)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert _known.known_of(store.X)["has_negative_values"] is False
    assert _known.known_of(adata.X) == {}
    monkeypatch.setattr(_features.RowReader, "csr", lambda *args: pytest.fail("the values were read"))
    sst.PaSCient.setup_anndata(store, sample_key="sample", labels_key="sample")
    sst.PaSCient(store, n_hidden=4, n_latent=2, log_normalize=True)


def test_a_store_answers_for_copies_and_for_no_edit(tmp_path, small_pieces):
    path = sst.pp.write_store(cells(0, ["a", "b"]), tmp_path / "c.zarr", sample_key="sample", **small_pieces)
    shutil.copytree(path, tmp_path / "copy.zarr", copy_function=shutil.copyfile)  # with times of its own
    for folder in (path, tmp_path / "copy.zarr"):
        assert _known.known_of(sst.pp.read_store(folder).X)["is_finite"]
        file = folder / "X" / "data" / "c" / "0"
        was = file.read_bytes()
        file.write_bytes(was[:20] + bytes([was[20] ^ 1]) + was[21:])  # as many bytes as before
        assert _known.known_of(sst.pp.read_store(folder).X) == {}
        file.write_bytes(was)
        assert _known.known_of(sst.pp.read_store(folder).X)["is_finite"]
        file.write_bytes(was[:-1])
        assert _known.known_of(sst.pp.read_store(folder).X) == {}


def test_files_are_open_while_they_are_read_and_those_of_others_stay_open(tmp_path, small_pieces, monkeypatch):
    paths = files(tmp_path, [cells(i, [f"s{i}"]) for i in range(3)], suffixes=("h5ad",))
    given = ad.read_h5ad(paths[0], backed="r")

    def n_files() -> int:
        return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)

    gc.collect()
    before, n_open = n_files(), []
    append = _store_writer.SparseWriter.append

    def counted(self, x):
        n_open.append(n_files())
        append(self, x)

    monkeypatch.setattr(_store_writer.SparseWriter, "append", counted)
    sst.pp.write_store([given, *paths[1:]], tmp_path / "c.zarr", sample_key="sample", **small_pieces)
    assert len(n_open) > 3
    assert max(n_open) <= before
    assert given.X[:2].shape == (2, len(GENES))
    given.file.close()


@pytest.mark.filterwarnings("ignore:.*is not trained")
@pytest.mark.parametrize("storage", ["store", "backed", "lazy"])
def test_everything_takes_cells_that_stay_on_disk(tmp_path, storage):
    adata = sst.datasets.perturbation_cohort(n_samples=12, n_cells=(20, 30))
    names = sorted(adata.obs["sample"].astype(str).unique())
    if storage == "backed":
        adata.write_h5ad(tmp_path / "c.h5ad")
    else:
        sst.pp.write_store(adata, tmp_path / "c.zarr", sample_key="sample", progress=False)
    opened = {
        "store": lambda: sst.pp.read_store(tmp_path / "c.zarr"),
        "backed": lambda: ad.read_h5ad(tmp_path / "c.h5ad", backed="r"),
        "lazy": lambda: ad.experimental.read_lazy(tmp_path / "c.zarr"),
    }[storage]
    sizes = {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "random_state": 0}
    found = []
    for cells_ in (adata, opened()):
        table = sst.profiles.mean(cells_, sample_key="sample")
        kmeans = sst.profiles.KMeansFractions(sample_key="sample", n_clusters=3).fit(cells_, samples=names[:6])
        control = sst.model.ModelProfile(sst.MAESTRO, sample_key="sample", build=sizes).fit(cells_, samples=names[:6])
        result = sst.tl.benchmark(
            cells_,
            {"mean": sst.profiles.Mean(sample_key="sample")},
            "subtype",
            sample_key="sample",
            cv=2,
            n_repeats=1,
            progress=False,
        )
        sst.MAESTRO.setup_anndata(cells_, "sample")
        model = sst.MAESTRO(cells_, **sizes)
        samples = model.to_sample_adata()
        scores = model.get_attention()
        sst.PaSCient.setup_anndata(cells_, "sample", labels_key="subtype")
        supervised = sst.PaSCient(cells_, n_hidden=8, n_latent=4, log_normalize=False, random_state=0)
        by_sample = supervised.get_attributions("subtype", n_steps=4, tolerance=np.inf).by_sample("perturbed")
        vectors = (table, kmeans.transform(cells_), control.transform(cells_), samples)
        scored = result.results.select_dtypes("number").to_numpy(float)
        attributed = by_sample.loc[names, adata.var_names].to_numpy(float)
        found.append([*(v[names].X for v in vectors), attributed, scored, np.sort(np.asarray(scores).ravel())])
    for memory, disk in zip(*found, strict=True):
        np.testing.assert_allclose(disk, memory, atol=2e-5)


def test_a_file_whose_samples_are_cut_is_told_how_to_sort_it(tmp_path, monkeypatch):
    from scset_tools.data import _sorted

    monkeypatch.setattr(_sorted, "MIN_CELLS", 50)
    adata = cells(0, ["a", "b", "c"], n=90)
    assert (adata.obs["sample"].to_numpy()[1:] != adata.obs["sample"].to_numpy()[:-1]).sum() > 10
    adata.write_h5ad(tmp_path / "u.h5ad")
    file = ad.read_h5ad(tmp_path / "u.h5ad", backed="r")
    with pytest.warns(UserWarning, match=r"write_store\('.*u\.h5ad', 'cohort\.zarr', sample_key='sample'\)"):
        sst.ScSet.setup_anndata(file, sample_key="sample")
    sst.ScSet.setup_anndata(file[:, :5].to_memory(), sample_key="sample")
    sst.ScSet.setup_anndata(file, sample_key="sample")  # said once for a file
    path = sst.pp.write_store(tmp_path / "u.h5ad", tmp_path / "c.zarr", sample_key="sample", progress=False)
    sst.ScSet.setup_anndata(sst.pp.read_store(path), sample_key="sample")


def test_columns_in_a_file_are_refused_where_they_are_large(tmp_path, monkeypatch):
    from scset_tools.data import _rows

    adata = cells(0, ["a", "b"])
    expected = adata.X.toarray()
    adata.X = adata.X.tocsc()
    adata.write_h5ad(tmp_path / "c.h5ad")
    monkeypatch.setattr(_rows, "MAX_CSC_BYTES", 100)
    with pytest.raises(ValueError, match=r"adata\.X is stored by columns \(CSC\).*write_store.*to_memory"):
        sst.ScSet.setup_anndata(ad.read_h5ad(tmp_path / "c.h5ad", backed="r"), sample_key="sample")
    path = sst.pp.write_store(tmp_path / "c.h5ad", tmp_path / "c.zarr", sample_key="sample", progress=False)
    store = sst.pp.read_store(path)
    np.testing.assert_array_equal(dense(store.X), expected[adata.obs_names.get_indexer(store.obs_names)])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("c.h5ad", r"given str\. Open the file: anndata\.read_h5ad"),
        (["a.h5ad", "b.h5ad"], r"list\. Several files.*write_store"),
    ],
)
def test_names_of_files_are_told_what_opens_them(given, words):
    with pytest.raises(TypeError, match=words):
        sst.ScSet.setup_anndata(given, sample_key="sample")


HOLD = """
import sys
from pathlib import Path
from scset_tools._lock import held
with held(Path(sys.argv[1]), str, is_removed=True):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_writes_a_store(tmp_path):
    pytest.importorskip("fcntl")
    path, lock = tmp_path / "cohort.zarr", tmp_path / ".cohort.zarr.lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        message = (
            rf"cohort.zarr is being written by process {other.pid} on .*\. Wait for it to end, or take another name"
        )
        with pytest.raises(RuntimeError, match=message):
            sst.pp.write_store(cells(0, ["s0"]), path, sample_key="sample", progress=False)
        other.kill()
        other.wait()
    assert lock.exists()  # of a process that was killed: it holds nothing
    sst.pp.write_store(cells(0, ["s0"]), path, sample_key="sample", progress=False)
    assert [found.name for found in tmp_path.iterdir()] == ["cohort.zarr"]


def test_a_lock_that_was_removed_while_it_was_opened_is_taken_anew(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    path, locked = tmp_path / "lock", fcntl.lockf

    def late(file, how):
        monkeypatch.undo()
        path.unlink()  # by the process that held it, between the two calls
        locked(file, how)

    monkeypatch.setattr(_lock.fcntl, "lockf", late)
    with _lock.held(path, str, is_removed=True):
        assert path.read_text().startswith("process ")
    assert not path.exists()


@pytest.mark.parametrize("made", ["permuted", "some", "joined", "dask", "dask permuted", "other cells"])
def test_what_is_made_of_a_store_is_not_taken_for_it(tmp_path, made):
    """Its values are read, in their own order, and not what the store says of its cells."""
    import dask.array

    store = sst.pp.read_store(
        sst.pp.write_store(cells(0, ["s1", "s0", "s2"]), tmp_path / "c.zarr", sample_key="sample", progress=False)
    )
    memory = store.to_memory()
    order = np.random.default_rng(0).permutation(store.n_obs)
    if made == "permuted":
        found, want = store[order].copy(), memory[order].copy()
    elif made == "some":
        found, want = store[5:40].copy(), memory[5:40].copy()
    elif made == "joined":
        found, want = (ad.concat([x[order[:30]].copy(), x[order[30:]].copy()]) for x in (store, memory))
    elif made.startswith("dask"):
        rows = order if made == "dask permuted" else np.arange(len(order))
        want = memory[rows].copy()
        found = want.copy()
        found.X = dask.array.from_array(dense(memory.X), chunks=(16, 12))[rows]
    else:  # the values of the file, of which someone says that they are of other samples
        found, want = store, memory
        for x in (found, want):
            x.obs["sample"] = np.asarray(x.obs["sample"].astype(str))[order]
    if made != "other cells":
        assert not _known.known_of(found.X)
    for x in (found, want):
        x.obs["sample"] = x.obs["sample"].astype(str).astype("category")
    means = [sst.profiles.mean(x, sample_key="sample").to_df() for x in (found, want)]
    pd.testing.assert_frame_equal(*means)
    vectors = []
    for x in (found, want):
        sst.MAESTRO.setup_anndata(x, "sample")
        build = {"n_hidden": 8, "n_latent": 4, "n_inducing": 2, "n_heads": 2, "n_cells": 10}
        model = sst.MAESTRO(x, random_state=0, **build)
        model.is_trained_ = True
        vectors.append(model.get_sample_representation())
    pd.testing.assert_frame_equal(*vectors, rtol=1e-4, atol=1e-5)


def test_a_store_that_was_moved_while_it_was_open_is_told(tmp_path):
    """Not read as zeros, which is what zarr makes of a piece without a file."""
    path = sst.pp.write_store(cells(0, ["s0", "s1"]), tmp_path / "c.zarr", sample_key="sample", progress=False)
    store = sst.pp.read_store(path)
    reader = RowReader(store.X)
    reader(np.arange(3))
    sst.MAESTRO.setup_anndata(store, "sample")
    model = sst.MAESTRO(store, n_hidden=8, n_latent=4, n_inducing=2, n_heads=2, n_cells=10)
    model.is_trained_ = True
    path.rename(tmp_path / "elsewhere.zarr")
    message = "c.zarr is no longer there: it was moved, renamed or removed while it was open"
    for read in (
        lambda: reader(np.arange(3)),
        lambda: list(reader.chunks()),
        lambda: sst.profiles.mean(store, sample_key="sample"),
        lambda: sst.MAESTRO.setup_anndata(store, "sample"),
        model.get_sample_representation,
    ):
        with pytest.raises(FileNotFoundError, match=message):
            read()


@pytest.mark.parametrize("kind", ["memory", "store", "h5ad"])
def test_a_view_is_told_what_to_do_with_it(tmp_path, kind):
    adata = cells(0, ["s0", "s1"])
    adata.obs["sample"] = ["s0", "s1"] * 30
    if kind == "store":
        adata = sst.pp.read_store(sst.pp.write_store(adata, tmp_path / "c.zarr", sample_key="sample", progress=False))
    elif kind == "h5ad":
        adata.write_h5ad(tmp_path / "c.h5ad")
        adata = ad.read_h5ad(tmp_path / "c.h5ad", backed="r")
    how = "to_memory" if kind == "h5ad" else "copy"
    with pytest.raises(ValueError, match=rf"is a view: 40 of the cells of another.* adata\.{how}\(\); .*fit\(samples="):
        sst.MAESTRO.setup_anndata(adata[:40], "sample")
    sst.MAESTRO.setup_anndata(getattr(adata[:40], how)(), "sample")
