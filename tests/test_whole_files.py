"""Files that appear whole."""

from __future__ import annotations

import pytest

from dens_ocp import whole_files


def test_a_file_and_its_folder(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    whole_files.write_text(path, "\N{ANGSTROM SIGN}")
    assert path.read_text(encoding="utf-8") == "\N{ANGSTROM SIGN}"
    assert list(path.parent.iterdir()) == [path]


def test_what_was_there_stays_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    path.write_text("before")
    monkeypatch.setattr(whole_files, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        whole_files.write_text(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
