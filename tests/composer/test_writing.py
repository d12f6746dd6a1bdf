from __future__ import annotations

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from composer.errors import SearchError, StorageFull
from composer.writing import beside, room


def test_it_works(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with beside(target) as folder:
        (folder / "file").write_text("x")
        assert not target.exists()
    assert (target / "file").read_text() == "x"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("place", ["out", "deep/below/out"])
def test_a_failure_leaves_nothing(place: str, tmp_path: Path) -> None:
    def fail() -> None:
        with beside(tmp_path / place) as folder:
            (folder / "file").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with beside(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
    assert (tmp_path / "out" / "file").exists()


@pytest.mark.parametrize("kind", ["file", "full folder"])
def test_what_exists_is_never_overwritten(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").write_text("")
    with pytest.raises(SearchError, match="not empty"), beside(target):
        pass
    assert target.exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_has_its_own_error(error: Exception) -> None:
    with pytest.raises(StorageFull, match="disk is full"), room():
        raise error


def test_other_errors_pass() -> None:
    with pytest.raises(PermissionError), room():
        raise PermissionError(errno.EACCES, "no")
