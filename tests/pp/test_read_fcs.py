"""FCS files written here, from the standard, and read back."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from _fcs import write_fcs

from scset_tools import pp

pytest.importorskip("flowio", reason="FCS files need flowio: pip install 'scset-tools[fcs]'")

FLOW = ["FSC-A", "SSC-A", "FITC-A", "PE-A", "APC-A", "Time"]
STAINS = ["", "", "CD3", "CD19 PE", "", ""]


def events(n=50, m=6, seed=0):
    return np.random.default_rng(seed).gamma(2, 300, (n, m)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Two flow files of one panel, and one with another."""
    write_fcs(tmp_path / "a.fcs", events(), FLOW, STAINS)
    write_fcs(tmp_path / "b.fcs", events(60, seed=1), FLOW, STAINS)
    write_fcs(
        tmp_path / "c.FCS",
        events(40, 5, seed=2),
        ["FSC-A", "SSC-A", "PE-A", "APC-A", "Time"],
        ["", "", "CD3E", "CD4", ""],
    )
    return tmp_path


def test_a_folder_is_one_anndata(folder, tmp_path):
    adata = pp.read_fcs(folder)
    assert adata.shape == (150, 3)
    assert list(adata.var_names) == ["CD3", "CD19", "CD4"]
    assert adata.X.dtype == np.float32
    of_a = adata[(adata.obs["sample"] == "a").to_numpy()]
    np.testing.assert_allclose(of_a.X[:, :2], np.arcsinh(events()[:, 2:4] / 150), rtol=1e-6)
    assert np.isnan(of_a.X[:, 2]).all()
    of_c = adata[(adata.obs["sample"] == "c").to_numpy()]
    np.testing.assert_allclose(of_c.X[:, [0, 2]], np.arcsinh(events(40, 5, seed=2)[:, 2:4] / 150), rtol=1e-6)
    assert np.isnan(of_c.X[:, 1]).all()
    np.testing.assert_allclose(adata.obsm["scatter"][["FSC-A", "SSC-A"]].to_numpy()[:50], events()[:, :2], rtol=1e-6)
    np.testing.assert_allclose(adata.obs["time"].to_numpy()[:50], events()[:, 5], rtol=1e-6)
    assert adata.var["n_files"].tolist() == [3, 2, 1]
    np.testing.assert_array_equal(adata.uns["panels"]["measured"], [[1, 1, 0], [1, 1, 0], [1, 0, 1]])
    adata.write_h5ad(tmp_path / "out.h5ad")
    assert ad.read_h5ad(tmp_path / "out.h5ad").uns["fcs_panels"]["marker"].tolist()[2] == "CD3"


def test_panels_and_where_they_disagree(folder):
    table = pp.fcs_panels(folder).set_index(["file", "channel"])
    assert table.loc[("a.fcs", "APC-A"), "kind"] == "unused"  # a detector without description, where others have one
    assert table.loc[("a.fcs", "FSC-A"), "kind"] == "scatter"
    assert table.loc[("a.fcs", "Time"), "kind"] == "time"
    assert table.loc[("a.fcs", "PE-A"), "conflict"] == "only some files have the marker"
    assert table.loc[("a.fcs", "FITC-A"), "conflict"] == "other channels in other files"
    assert table.loc[("a.fcs", "FSC-A"), "conflict"] == ""
    assert table.loc[("c.FCS", "APC-A"), "n_files"] == 1


def test_mass_cytometry_has_its_own_cofactor(folder):
    names = ["Time", "Event_length", "Y89Di", "Nd145Di", "Yb170Di", "Ir191Di"]
    x = events(30, 6, seed=3)
    write_fcs(folder / "m.fcs", x, names, ["Time", "Event_length", "89Y_CD45", "145Nd_CD4", "CD3(Yb170)Di", "DNA1"])
    adata = pp.read_fcs(folder / "m.fcs")
    assert list(adata.var_names) == ["CD45", "CD4", "CD3"]
    np.testing.assert_allclose(adata.X, np.arcsinh(x[:, 2:5] / 5), rtol=1e-6)
    assert list(adata.obsm["technical"].columns) == ["Event_length", "Ir191Di"]
    both = pp.fcs_panels([folder / "a.fcs", folder / "m.fcs"])
    assert both["conflict"].str.contains("cofactors differ between files").sum() == 5
    linear = pp.read_fcs(folder / "m.fcs", cofactor=None)
    np.testing.assert_allclose(linear.X, x[:, 2:5], rtol=1e-6)
    own = pp.read_fcs(folder / "m.fcs", cofactor={"CD45": 1.0, "CD4": 2.0, "CD3": 3.0})
    np.testing.assert_allclose(own.X, np.arcsinh(x[:, 2:5] / [1, 2, 3]), rtol=1e-6)


def test_draws_depend_on_the_file_and_the_seed_alone(folder):
    some = pp.read_fcs(folder, n_cells=20, seed=1)
    assert some.obs["sample"].value_counts().to_dict() == {"a": 20, "b": 20, "c": 20}
    alone = pp.read_fcs(folder / "b.fcs", n_cells=20, seed=1)
    np.testing.assert_array_equal(alone.X, some[(some.obs["sample"] == "b").to_numpy()].X[:, :2])
    other = pp.read_fcs(folder / "b.fcs", n_cells=20, seed=2)
    assert not np.array_equal(other.X, alone.X)


def test_metadata_name_samples(folder):
    (folder / "m.csv").write_text("File,sample,disease\nc.FCS,p1,HIV\na.fcs,p0,healthy\nb,p2,HIV\n")
    adata = pp.read_fcs(folder, folder / "m.csv", sample_key="donor")
    assert adata.obs["donor"].cat.categories.tolist() == ["a", "b", "c"]
    adata = pp.read_fcs(folder, folder / "m.csv")
    of = adata.obs.drop_duplicates("sample").set_index("sample")
    assert of["disease"].to_dict() == {"p0": "healthy", "p1": "HIV", "p2": "HIV"}
    assert of.loc["p1", "file"] == "c.FCS"


def test_markers_are_chosen_by_any_of_their_names(folder):
    assert list(pp.read_fcs(folder, markers=["CD4", "cd3e"]).var_names) == ["CD4", "CD3"]
    with pytest.raises(ValueError, match=r"2 of 3 samples have no marker at all .*'a', 'b'"):
        pp.read_fcs(folder, markers=["CD4"])
    with pytest.raises(KeyError, match=r"No file has the markers \['CD8'\].*'CD3', 'CD19', 'CD4'"):
        pp.read_fcs(folder, markers=["CD8"])


def test_a_marker_in_two_channels(tmp_path):
    write_fcs(tmp_path / "a.fcs", events(10, 3), ["FITC-A", "PE-A", "APC-A"], ["CD3", "CD3E", "CD4/CD8"])
    table = pp.fcs_panels(tmp_path)
    assert table["conflict"].tolist() == [
        "marker also in channel ['PE-A']",
        "marker also in channel ['FITC-A']",
        "carries several markers: ['CD4', 'CD8']",
    ]
    with pytest.raises(
        ValueError, match=r"marker 'CD3' in two channels: \['FITC-A \(CD3\)', 'PE-A \(CD3E\)'\].*synonyms"
    ):
        pp.read_fcs(tmp_path)
    adata = pp.read_fcs(tmp_path, synonyms={"CD3E": "CD3 clone 2"})
    assert list(adata.var_names) == ["CD3", "CD3 clone 2", "CD4/CD8"]
    assert list(pp.read_fcs(tmp_path, markers=["CD4/CD8"]).var_names) == ["CD4/CD8"]


def test_spillover_is_told(tmp_path):
    write_fcs(tmp_path / "a.fcs", events(), FLOW, STAINS, SPILLOVER="2,FITC-A,PE-A,1,0.1,0,1")
    with pytest.warns(UserWarning, match=r"1 of 1 files carry a spillover matrix, which is not applied .*'a.fcs'"):
        pp.read_fcs(tmp_path)


def broken(path, kind):
    whole = write_fcs(path, events(), FLOW, STAINS).read_bytes()
    if kind == "text":
        path.write_bytes(b"not cytometry at all")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(whole[:-200])
    elif kind == "header":
        path.write_bytes(whole[:40])
    elif kind == "offsets":
        path.write_bytes(whole[:10] + b"xxxxxxxx" + whole[18:])
    elif kind == "no_par":
        write_fcs(path, events(), FLOW, STAINS, PAR=None)
    elif kind == "few":
        write_fcs(path, events(), FLOW, STAINS, TOT="70")
    elif kind == "more":
        write_fcs(path, events(), FLOW, STAINS, PAR="7")
    elif kind == "bits":
        write_fcs(path, events(), FLOW, STAINS, DATATYPE="I", P1B="17")
    elif kind == "none":
        write_fcs(path, events()[:0], FLOW, STAINS)
    elif kind == "nan":
        x = events()
        x[3, 2] = np.nan
        write_fcs(path, x, FLOW, STAINS)


@pytest.mark.parametrize(
    "kind", ["text", "empty", "cut", "header", "offsets", "no_par", "few", "more", "bits", "none", "nan"]
)
def test_a_broken_file_is_named(tmp_path, kind):
    broken(tmp_path / "bad.fcs", kind)
    with pytest.raises(ValueError, match=r"bad\.fcs (cannot be read as an FCS file: .+|holds .+)\."):
        pp.read_fcs(tmp_path)


@pytest.mark.parametrize("size", range(0, 1500, 97))
def test_a_file_cut_anywhere_is_named(tmp_path, size):
    whole = write_fcs(tmp_path / "bad.fcs", events(), FLOW, STAINS).read_bytes()
    (tmp_path / "bad.fcs").write_bytes(whole[:size])
    with pytest.raises(ValueError, match=r"bad\.fcs "):
        pp.read_fcs(tmp_path)


def test_other_messages(folder):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        pp.read_fcs(folder / "nothing")
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no FCS file in the folder"):
        pp.read_fcs(folder / "empty")
    with pytest.raises(FileNotFoundError, match="No FCS files were given"):
        pp.read_fcs([])
    with pytest.raises(ValueError, match="n_cells=0 must be a whole number of 1 or more"):
        pp.read_fcs(folder, n_cells=0)
    with pytest.raises(ValueError, match="cofactor='mass' is not one of"):
        pp.read_fcs(folder, cofactor="mass")
    with pytest.raises(KeyError, match="cofactor has no entry for marker 'CD19'"):
        pp.read_fcs(folder, cofactor={"CD3": 5.0})
    write_fcs(folder / "empty" / "a.fcs", events(), FLOW, STAINS)
    with pytest.raises(ValueError, match=r"Files of one name would be one sample: \['a'\]"):
        pp.read_fcs([folder, folder / "empty"])
    with pytest.raises(ValueError, match=r"no column with the names of the files .*Columns: \['donor'\]"):
        pp.read_fcs(folder, pd.DataFrame({"donor": ["a"]}))
    with pytest.raises(
        ValueError, match=r"2 files have no row \(first: \['b', 'c'\]\), 1 rows have no file \(first: \['z'\]\)"
    ):
        pp.read_fcs(folder, pd.DataFrame({"file": ["a.fcs", "z.fcs"]}))
    with pytest.raises(ValueError, match=r"names files twice: \['a'\]"):
        pp.read_fcs(folder, pd.DataFrame({"file": ["a.fcs", "a.fcs"]}))
    write_fcs(folder / "empty" / "a.fcs", events(10, 2), ["FSC-A", "Time"])
    with pytest.raises(ValueError, match="The files have no marker"):
        pp.read_fcs(folder / "empty")
