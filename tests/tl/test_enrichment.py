"""Over-representation against scipy's Fisher test, decoupler where it is installed, and hand-made GMT files."""

from __future__ import annotations

import gzip
import importlib
import io
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact
from statsmodels.stats.multitest import multipletests

from scset_tools import tl

BACKGROUND = [f"g{i}" for i in range(200)]


@pytest.fixture
def gene_sets():
    rng = np.random.default_rng(0)
    sets = {f"set{i}": list(rng.choice(BACKGROUND, size=n, replace=False)) for i, n in enumerate((5, 20, 60, 100))}
    return sets | {"planted": BACKGROUND[:15]}


def test_p_values_are_fishers(gene_sets):
    genes = BACKGROUND[:10] + BACKGROUND[100:130]
    out = tl.enrichment(genes, gene_sets, background=BACKGROUND).set_index("gene_set")
    for name, members in gene_sets.items():
        a = len(set(genes) & set(members))
        table = [[a, len(members) - a], [len(genes) - a, 200 - len(members) - len(genes) + a]]
        odds, p = fisher_exact(table, alternative="greater")
        assert out.loc[name, "p_value"] == pytest.approx(p)
        assert out.loc[name, "odds_ratio"] == pytest.approx(odds)
        assert out.loc[name, "n_overlap"] == a
        assert out.loc[name, "fold"] == pytest.approx(a / (len(members) * len(genes) / 200))
    np.testing.assert_allclose(out["p_adjusted"], multipletests(out["p_value"], method="fdr_bh")[1])
    assert out.index[0] == "planted"
    assert out.loc["planted", "genes"] == ";".join(BACKGROUND[:10])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n_inputs", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_lists_sets_and_backgrounds_are_fishers(n_inputs):
    """Lists as rankings with ties, or as names; sets with genes of no background; one Fisher test of scipy per set."""
    for seed in range(n_inputs):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(5, 60))
        universe = [f"g{i}" for i in range(n)]
        sets = {
            f"s{j}": list(rng.choice([f"g{i}" for i in range(n + 10)], int(rng.integers(1, n + 1)), replace=False))
            for j in range(3)
        }
        n_top = int(rng.integers(1, n))
        if seed % 2:
            scores = pd.Series(rng.integers(0, 8, n).astype(float), index=rng.permutation(universe))
            at_cut = np.sort(scores.to_numpy())[::-1][n_top]
            chosen = set(scores.index[scores > at_cut])
            given = {"genes": scores, "n_top": n_top}
        else:
            chosen = set(rng.choice(universe, n_top, replace=False))
            given = {"genes": sorted(chosen), "background": universe}
        inside = {name: set(members) & set(universe) for name, members in sets.items()}
        tested = {name: members for name, members in inside.items() if len(members) >= 2}
        if not tested:
            with pytest.raises(ValueError, match="None of 3 gene sets"):
                tl.enrichment(gene_sets=sets, **given)
            continue
        out = tl.enrichment(gene_sets=sets, **given).set_index("gene_set")
        assert set(out.index) == set(tested)
        for name, members in tested.items():
            a = len(chosen & members)
            table = [[a, len(members) - a], [len(chosen) - a, n - len(members) - len(chosen) + a]]
            assert out.loc[name, "p_value"] == pytest.approx(fisher_exact(table, alternative="greater")[1])


def test_a_series_of_scores_ranks_and_is_its_own_background(gene_sets):
    rng = np.random.default_rng(0)
    scores = pd.Series(np.linspace(1, 0, 200), index=BACKGROUND)
    out = tl.enrichment(scores.sample(frac=1, random_state=1), gene_sets, n_top=12)
    expected = tl.enrichment(BACKGROUND[:12], gene_sets, background=BACKGROUND)
    pd.testing.assert_frame_equal(out, expected)
    pd.testing.assert_frame_equal(tl.enrichment(BACKGROUND, gene_sets, n_top=12), expected)
    scores[rng.choice(BACKGROUND[100:], 50, replace=False)] = np.nan
    assert tl.enrichment(scores, gene_sets, n_top=12)["n_background"].unique().tolist() == [150]


def test_genes_named_twice_count_once(gene_sets):
    twice = {name: members * 2 for name, members in gene_sets.items()}
    out = tl.enrichment(BACKGROUND[:12] * 2, twice, background=BACKGROUND * 2)
    pd.testing.assert_frame_equal(out, tl.enrichment(BACKGROUND[:12], gene_sets, background=BACKGROUND))


def test_genes_outside_the_background_are_left_out_of_list_and_sets(gene_sets):
    expected = tl.enrichment(BACKGROUND[:12], gene_sets, background=BACKGROUND)
    wide = {name: [*members, "alien1", "alien2"] for name, members in gene_sets.items()}
    with pytest.warns(
        UserWarning, match=r"1 of 13 genes of the list are not in the background of 200 genes \(first: \['alien0'\]"
    ):
        out = tl.enrichment([*BACKGROUND[:12], "alien0"], wide, background=BACKGROUND)
    pd.testing.assert_frame_equal(out, expected)


def test_empty_and_small_sets_are_not_tested(gene_sets):
    sets = gene_sets | {"empty": [], "one": ["g3"], "outside": ["x", "y", "z"]}
    out = tl.enrichment(BACKGROUND[:12], sets, background=BACKGROUND)
    pd.testing.assert_frame_equal(out, tl.enrichment(BACKGROUND[:12], gene_sets, background=BACKGROUND))
    sizes = tl.enrichment(BACKGROUND[:12], sets, background=BACKGROUND, min_size=0, max_size=20)["n_set"]
    assert sorted(sizes) == [1, 5, 15, 20]


def test_a_list_that_is_the_background_enriches_nothing(gene_sets):
    out = tl.enrichment(BACKGROUND, gene_sets, background=BACKGROUND)
    assert (out["p_value"] == 1).all()
    assert (out["fold"] == 1).all()


def test_random_lists_are_not_enriched(gene_sets):
    rng = np.random.default_rng(0)
    p = [
        tl.enrichment(list(rng.choice(BACKGROUND, 40, replace=False)), gene_sets, background=BACKGROUND)[
            "p_value"
        ].min()
        for _ in range(100)
    ]
    assert np.mean(np.array(p) < 0.01) < 0.1


def test_gmt_files_are_read(tmp_path, gene_sets):
    path = tmp_path / "sets.gmt"
    lines = ["\t".join([name, "http://no.where", *members]) for name, members in gene_sets.items()]
    path.write_text("\r\n".join(lines) + "\n\nhollow\tna\n" + "twice\tna\tg1\tg1\t\t g2 \n")
    sets = tl.read_gmt(path)
    assert {k: sets[k] for k in gene_sets} == gene_sets
    assert sets["hollow"] == []
    assert sets["twice"] == ["g1", "g2"]
    out = tl.enrichment(BACKGROUND[:12], path, background=BACKGROUND, min_size=3)
    pd.testing.assert_frame_equal(out, tl.enrichment(BACKGROUND[:12], gene_sets, background=BACKGROUND, min_size=3))


def test_gmt_errors(tmp_path):
    path = tmp_path / "bad.gmt"
    path.write_text("a\tna\tg1\nno tabs here\n")
    with pytest.raises(ValueError, match=r"Line 2 of .*bad.gmt is no gene set"):
        tl.read_gmt(path)
    path.write_text("a\tna\tg1\na\tna\tg2\n")
    with pytest.raises(ValueError, match="names the gene set 'a' a second time"):
        tl.read_gmt(path)
    with pytest.raises(FileNotFoundError, match=r"none\.gmt"):
        tl.read_gmt(tmp_path / "none.gmt")


def test_decoupler_gives_the_same(gene_sets):
    pytest.importorskip("decoupler", reason="the optional backend decoupler is not installed")
    genes = BACKGROUND[:10] + BACKGROUND[100:130]
    out = tl.enrichment(genes, gene_sets, background=BACKGROUND, backend="decoupler")
    pd.testing.assert_frame_equal(out, tl.enrichment(genes, gene_sets, background=BACKGROUND))


def test_decoupler_missing_says_what_to_do(gene_sets, monkeypatch):
    monkeypatch.setitem(sys.modules, "decoupler", None)
    with pytest.raises(ImportError, match=r"pip install decoupler. Or use backend='scipy'"):
        tl.enrichment(BACKGROUND[:12], gene_sets, background=BACKGROUND, backend="decoupler")


def test_errors(gene_sets):
    with pytest.raises(ValueError, match="A list of 2 genes needs background"):
        tl.enrichment(["g1", "g2"], gene_sets)
    with pytest.raises(ValueError, match="ranks all its 2 genes: pass n_top"):
        tl.enrichment(pd.Series([1.0, 2.0], index=["g1", "g2"]), gene_sets)
    with pytest.raises(ValueError, match="must hold scores"):
        tl.enrichment(pd.Series(["g1", "g2"]), gene_sets, n_top=1)
    with pytest.raises(ValueError, match="No gene of the list is in the background"):
        tl.enrichment([], gene_sets, background=BACKGROUND)
    with pytest.raises(ValueError, match=r"None of 1 gene sets has between 2 .*'ENSG1', one of the background 'g0'"):
        tl.enrichment(["g1"], {"a": ["ENSG1", "ENSG2"]}, background=BACKGROUND)
    with pytest.raises(ValueError, match=r"None of 0 gene sets"):
        tl.enrichment(["g1"], {}, background=BACKGROUND)
    with pytest.raises(ValueError, match="n_top=0 must be a whole number of 1 or more"):
        tl.enrichment(["g1"], gene_sets, background=BACKGROUND, n_top=0)
    with pytest.raises(TypeError, match="is the text 'g1'"):
        tl.enrichment("g1", gene_sets, background=BACKGROUND)
    with pytest.raises(ValueError, match="backend must be one of"):
        tl.enrichment(["g1"], gene_sets, background=BACKGROUND, backend="R")


def by_set(table):
    return table.sort_values("gene_set").reset_index(drop=True)


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_genes_tied_at_the_cut_are_left_out_whatever_their_order(gene_sets, order):
    scores = pd.Series(0.0, index=BACKGROUND)
    scores[BACKGROUND[:6]] = [3, 3, 2, 1, 1, 1]
    with pytest.warns(UserWarning, match=r"cut after 5 genes goes through 3 genes with the same score .1.: .* 3 genes"):
        out = tl.enrichment(scores[order], gene_sets, n_top=5)
    pd.testing.assert_frame_equal(out, tl.enrichment(BACKGROUND[:3], gene_sets, background=BACKGROUND))
    pd.testing.assert_frame_equal(  # a cut between two scores loses nothing
        tl.enrichment(scores[order], gene_sets, n_top=6), tl.enrichment(scores, gene_sets, n_top=6)
    )


def test_a_ranking_that_says_nothing_finds_nothing(gene_sets):
    with pytest.warns(UserWarning, match="200 genes with the same score .0.: none of them is taken, and 0 genes"):
        out = tl.enrichment(pd.Series(0.0, index=BACKGROUND), gene_sets, n_top=10)
    assert (out["p_value"] == 1).all()
    assert (out["n_list"] == 0).all()


def test_missing_names_are_no_genes(gene_sets):
    expected = tl.enrichment(BACKGROUND[:8], gene_sets, background=BACKGROUND)
    odd = {name: [*genes, None, " "] for name, genes in gene_sets.items()}
    with pytest.warns(UserWarning, match="are missing and are left out") as caught:
        out = tl.enrichment([*BACKGROUND[:8], np.nan, pd.NA], odd, background=[*BACKGROUND, np.nan, "", None])
    pd.testing.assert_frame_equal(out, expected)
    texts = " ".join(str(w.message) for w in caught)
    assert "2 of 10 names in genes are missing" in texts
    assert "3 of 203 names in background" in texts
    assert "2 of 17 names in gene set 'planted'" in texts
    scores = pd.Series(np.linspace(1, 0, 200), index=BACKGROUND)
    odd = pd.concat(
        [scores, pd.Series([5.0, 5.0, 0.1], index=[np.nan, "", "g3"])]
    )  # no name twice, g3 with its larger score
    pd.testing.assert_frame_equal(tl.enrichment(odd, gene_sets, n_top=8), tl.enrichment(scores, gene_sets, n_top=8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gene_sets": {"S": "TP53"}}, "gene set 'S' must be a list of genes, but is 'TP53'"),
        ({"background": "TP53"}, "background must be a list of genes, but is 'TP53'"),
        ({"gene_sets": ["g1", "g2"]}, "gene_sets must be a dict of names to genes, the path of a GMT file, or a table"),
        ({"gene_sets": {"S": 3}}, "gene set 'S' must be a list of genes, but is 3"),
    ],
)
def test_what_is_no_list_of_genes_is_refused_by_name(gene_sets, arguments, message):
    with pytest.raises(TypeError, match=message):
        tl.enrichment(BACKGROUND[:8], **{"gene_sets": gene_sets, "background": BACKGROUND, **arguments})


def test_gene_sets_as_a_table(gene_sets):
    table = pd.DataFrame(
        [(s, g, 1.0) for s, genes in gene_sets.items() for g in genes], columns=["source", "target", "w"]
    )
    expected = tl.enrichment(BACKGROUND[:8], gene_sets, background=BACKGROUND)
    shuffled = table.sample(frac=1, random_state=0).astype({"source": "category", "target": "category"})
    for given in (table, shuffled):
        pd.testing.assert_frame_equal(tl.enrichment(BACKGROUND[:8], given, background=BACKGROUND), expected)
    with pytest.raises(ValueError, match=r"lacks \['source', 'target'\]. Columns: \['geneset', 'gene', 'w'\]"):
        tl.enrichment(BACKGROUND[:8], table.set_axis(["geneset", "gene", "w"], axis=1), background=BACKGROUND)


PLAIN = "S\td\tA\tB\nT\td\tC\tD\n"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\xef\xbb\xbf" + PLAIN.encode(), id="byte-order-mark"),
        pytest.param(b'"S"\t"d"\t"A"\t"B"\r\n"T"\t\t"C"\t D\t\r\n', id="quotes"),
        pytest.param(gzip.compress(PLAIN.encode(), mtime=0), id="gzip"),
        pytest.param(gzip.compress(b"\xef\xbb\xbf" + PLAIN.encode(), mtime=0), id="gzip-with-mark"),
        pytest.param(PLAIN.encode("utf-16"), id="utf-16"),
    ],
)
def test_gmt_files_as_programs_write_them(tmp_path, raw):
    path = tmp_path / "sets.gmt"
    path.write_bytes(raw)
    assert tl.read_gmt(path) == {"S": ["A", "B"], "T": ["C", "D"]}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"S\xe9\td\tA\tB\n", "is not UTF-8 text .byte 0xe9 at position 1.* iconv"),
        (gzip.compress(PLAIN.encode(), mtime=0)[:-9], "is compressed by gzip, but cannot be read"),
        (b"PK\x03\x04\x14\x00\xff\xff", "a zip archive has to be unpacked first"),
    ],
)
def test_gmt_files_that_cannot_be_read_are_named(tmp_path, raw, message):
    path = tmp_path / "sets.gmt"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=rf"sets.gmt {message}|sets.gmt.*{message}"):
        tl.read_gmt(path)


@pytest.mark.filterwarnings("ignore")  # of its own imports
def test_decouplers_networks_are_gene_sets(monkeypatch):
    """A network of its own making, and a resource as it makes it of a file, of which only the download is replaced."""
    decoupler = pytest.importorskip("decoupler", reason="the optional package decoupler is not installed")
    scores = pd.Series(np.linspace(1, 0, 60), index=[f"G{i + 1:02d}" for i in range(60)])
    _, net = decoupler.ds.toy(nobs=12, nvar=20, seed=0)
    sets = {name: list(part["target"]) for name, part in net.groupby("source")}
    by_table, by_dict = (tl.enrichment(scores, s, n_top=8) for s in (net, sets))
    pd.testing.assert_frame_equal(by_table, by_dict)
    assert set(by_table["gene_set"]) == set(net["source"])
    file = pd.DataFrame(
        {"genesymbol": ["G01", "G02", "COMPLEX:G40_G03", "G50"], "geneset": ["HALLMARK_A"] * 3 + ["HALLMARK_B"]}
    )
    packed = gzip.compress(file.to_csv(sep="\t", index=False).encode())
    monkeypatch.setattr(
        importlib.import_module("decoupler.op._hallmark"), "_download", lambda *a, **k: io.BytesIO(packed)
    )
    found = tl.enrichment(scores, decoupler.op.hallmark(), n_top=8, min_size=1).set_index("gene_set")
    assert found.loc["A", "genes"] == "G01;G02;G03"
    assert found["n_set"].to_dict() == {"A": 4, "B": 1}
