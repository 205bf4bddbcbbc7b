"""Names of markers: spellings that are one marker, and spellings that are not."""

from __future__ import annotations

import csv
from importlib.resources import files

import pytest

from scset_tools import _markers

ONE = {
    "CD3": ["CD3", "cd3", "CD3E", "CD3-FITC", "CD3 FITC-A", "CD3(Yb170)Di", "170Yb_CD3", "Comp-FITC-A :: CD3", "CD3ε", "CD3_UCHT1"],
    "CD4": ["PE-CD4", "CD4 PE", "CD4(Nd145)Dd", "145Nd_CD4", "CD4 BV785-A"],
    "CD8": ["CD8a-PerCP-Cy5.5-A", "CD8A", "112Cd_CD8", "CD8 Alexa Fluor 700"],
    "CD25": ["CD25 PE-Cy7", "IL2RA", "CD25"],
    "CD56": ["BV421 CD56", "CD56 BUV395", "NCAM1"],
    "CD112": ["CD112"],
    "HLA-DR": ["HLA-DR", "HLADR", "HLA DR-APC-H7"],
    "TCRgd": ["TCRγδ", "TCR gd BV421", "TCR gamma delta"],
    "PD-1": ["PD1", "CD279", "PDCD1"],
    "CXCR5": ["CD185", "CXCR5-AF647"],
    "pErk": ["pERK1/2", "pErk"],
}  # fmt: skip


@pytest.mark.parametrize(("marker", "name"), [(m, n) for m, names in ONE.items() for n in names])
def test_spellings_of_one_marker(marker, name):
    assert _markers.marker_of(name) == (marker, True)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("FITC-A", "FITC-A"),  # a dye without a marker
        ("Yb170Di", "Yb170Di"),
        ("CD33.1", "CD33.1"),  # not CD331
        ("CD16/CD56", "CD16/CD56"),  # two in one channel
        ("MyMarker-FITC-A", "MyMarker"),
        ("FSC-A", "FSC-A"),
    ],
)
def test_what_is_not_known_is_not_guessed(name, left):
    assert _markers.marker_of(name) == (left, False)


def test_digits_that_stand_apart_are_not_one_number():
    assert _markers.marker_of("CD3_2")[0] == "CD3"
    assert _markers.marker_of("CD32")[0] == "CD32"
    assert _markers.match_key("X_1_2") != _markers.match_key("X_12")


def test_heights_and_areas_of_scatter_stay_apart():
    assert len({_markers.match_key(n) for n in ("FSC-A", "FSC-H", "FSC-W", "SSC-A")}) == 4


def test_synonyms_come_before_the_table():
    assert _markers.marker_of("Leu-4 FITC", {"leu4": "CD3"}) == ("CD3", True)
    assert _markers.marker_of("CD3", {"CD3": "TCR complex"}) == ("TCR complex", True)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("FSC-A", "scatter"),
        ("SSC-B-H", "scatter"),
        ("Time", "time"),
        ("Event_length", "time"),
        ("DNA1", "technical"),
        ("DNA2(Ir193)Di", "technical"),
        ("Bead", "technical"),
        ("Residual", "technical"),
        ("CD3", "marker"),
        ("FITC-A", "marker"),
        ("timeless", "marker"),
    ],
)
def test_kind_of_channel(name, kind):
    assert _markers.channel_kind(name) == kind


def test_two_columns_of_one_marker_are_found():
    assert _markers.twice(["CD3", "CD4", "CD3E-FITC"]) == {"CD3": ["CD3", "CD3E-FITC"]}
    assert _markers.twice(["CD3", "CD4"]) == {}


def test_the_table_says_one_thing_of_each_name():
    with (files("scset_tools") / "markers.csv").open(encoding="utf-8") as file:
        rows = [
            (row["marker"], name)
            for row in csv.DictReader(file)
            for name in (row["marker"], *row["aliases"].split("|"))
            if name
        ]
    seen: dict[str, str] = {}
    for marker, name in rows:
        assert seen.setdefault(_markers.marker_key(name), marker) == marker, name
        assert _markers.marker_of(name) == (marker, True)
    assert len({marker for marker, _ in rows}) > 150
