import os
from pathlib import Path

import pytest

from hexopt.atomic import atomic_write


def test_appears_whole_under_its_name_only(tmp_path):
    path = tmp_path / "page.html"
    with atomic_write(path) as stream:
        stream.write("größer\n")
        assert not path.exists()
    assert path.read_bytes() == "größer\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "run.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(path, "wb") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["run.bin"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with atomic_write(tmp_path / "link") as stream:
        stream.write("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "x"


def test_what_is_not_a_plain_file_is_not_replaced():
    with atomic_write(os.devnull) as stream:
        stream.write("x")
    assert not Path(os.devnull).is_file()


def test_errors_name_the_path_that_was_asked_for(tmp_path):
    path = tmp_path / "nowhere" / "run.json"
    with pytest.raises(FileNotFoundError) as caught, atomic_write(path):
        pass
    assert caught.value.filename == str(path)
    with pytest.raises(IsADirectoryError) as caught, atomic_write(tmp_path):
        pass
    assert caught.value.filename == str(tmp_path)
