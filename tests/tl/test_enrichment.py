"""Over-representation against scipy's Fisher test, decoupler where it is installed, and hand-made GMT files."""

from __future__ import annotations

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
    with pytest.raises(ValueError, match="n_top must be at least 1, but is 0"):
        tl.enrichment(["g1"], gene_sets, background=BACKGROUND, n_top=0)
    with pytest.raises(TypeError, match="is the text 'g1'"):
        tl.enrichment("g1", gene_sets, background=BACKGROUND)
    with pytest.raises(ValueError, match="backend must be one of"):
        tl.enrichment(["g1"], gene_sets, background=BACKGROUND, backend="R")
