"""Outputs appear whole or not at all; inputs are read or told apart."""

from __future__ import annotations

import os
import stat

import pandas as pd
import pytest

from scset_tools.cli._exit import CommandError, ExitCode, Interrupted
from scset_tools.cli._files import for_spreadsheet, output, read_cells, writing


def test_an_output_appears_at_the_end_with_the_usual_rights(tmp_path):
    path = tmp_path / "a.csv"
    with output(path) as place:
        place.write_text("x")
        assert not path.exists()
        assert place.suffix == ".csv"
    assert path.read_text() == "x"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert os.listdir(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("error", [ValueError("broken"), Interrupted(2)])
@pytest.mark.parametrize("is_folder", [False, True])
def test_after_an_error_nothing_is_left_and_the_old_output_stays(tmp_path, error, is_folder):
    path = tmp_path / "out"
    if is_folder:
        path.mkdir()
        (path / "old").write_text("old")
    else:
        path.write_text("old")

    def fail_halfway():
        with output(path, overwrite=True, is_folder=is_folder) as place:
            if is_folder:
                place.mkdir()
                (place / "new").write_text("half")
            else:
                place.write_text("half")
            raise error

    with pytest.raises(type(error), match=str(error)):
        fail_halfway()
    assert os.listdir(tmp_path) == ["out"]
    assert (path / "old" if is_folder else path).read_text() == "old"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "model"
    for text in ("first", "second"):
        with output(path, overwrite=True, is_folder=True) as place:
            place.mkdir()
            (place / text).write_text(text)
    assert os.listdir(path) == ["second"]
    assert os.listdir(tmp_path) == ["model"]


def test_what_is_there_is_kept(tmp_path):
    path = tmp_path / "a.h5ad"
    path.write_text("old")
    with pytest.raises(CommandError, match=r"is there already. Take another name, or pass --overwrite") as caught:
        with output(path):
            pass
    assert caught.value.code is ExitCode.UNWRITABLE
    with pytest.raises(CommandError, match="is a file, not a folder"):
        with output(path, overwrite=True, is_folder=True):
            pass
    assert path.read_text() == "old"


def test_a_folder_that_is_not_there_is_told_before_any_work(tmp_path):
    with pytest.raises(CommandError, match=r"cannot be written: there is no such folder \(.*nowhere\)") as caught:
        with output(tmp_path / "nowhere" / "a.h5ad"):
            pass
    assert caught.value.code is ExitCode.UNWRITABLE


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may write everywhere")
def test_no_write_permission(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    with pytest.raises(CommandError, match="cannot be written: Permission denied"):
        with output(folder / "a.h5ad"):
            pass


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("write failed, errno = 28")])
def test_a_full_disk(tmp_path, error):
    with pytest.raises(
        CommandError, match=r"a.h5ad cannot be written: (No space left on device|write failed)"
    ) as caught:
        with writing(tmp_path / "a.h5ad"):
            raise error
    assert caught.value.code is ExitCode.UNWRITABLE


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "There is no file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_text("no HDF5"), "is no h5ad file"),
        (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
    ],
    ids=["missing", "folder", "text", "empty"],
)
def test_unreadable_input(tmp_path, make, message):
    path = tmp_path / "a.h5ad"
    make(path)
    with pytest.raises(CommandError, match=message) as caught:
        read_cells(path)
    assert caught.value.code is ExitCode.UNREADABLE


def test_a_truncated_file(cohort, tmp_path):
    path = tmp_path / "a.h5ad"
    path.write_bytes(cohort.read_bytes()[:9000])
    with pytest.raises(CommandError, match=r"cannot be read as an h5ad file: .*truncated"):
        read_cells(path)


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path):
    names = ["=cmd()", "+x", "@y", "two\nlines", "plain", "-1"]
    table = pd.DataFrame(
        {"sample": pd.Categorical(names), "-score": [-1.5, 2, 3, 4, 5, 6], "missing": [None, "=x", *"abcd"]}
    )
    for_spreadsheet(table).to_csv(tmp_path / "t.csv", index=False)
    back = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert list(back.columns) == ["sample", "'-score", "missing"]
    assert list(back["sample"]) == ["'=cmd()", "'+x", "'@y", "'two\nlines", "plain", "'-1"]
    assert list(back["'-score"]) == [-1.5, 2, 3, 4, 5, 6]
    assert list(back["missing"][:2]) == ["", "'=x"]
