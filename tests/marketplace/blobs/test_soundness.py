"""A file that was hashed and right is trusted for an hour, and only while it is the same file."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from marketplace.blobs import soundness
from marketplace.blobs.soundness import identify, is_sound, remember_sound

SHA256 = "a" * 64


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(soundness, "_sound", soundness.OrderedDict())


def test_it_works(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file:
        identity = identify(file, SHA256)
        assert not is_sound(identity)
        remember_sound(identity)
        assert is_sound(identify(file, SHA256))
        assert not is_sound(identify(file, "b" * 64))
    path.write_bytes(b"another")
    os.utime(path, ns=(1, 1))
    with path.open("rb") as file:
        assert not is_sound(identify(file, SHA256))


def test_after_an_hour_it_is_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file:
        identity = identify(file, SHA256)
    now = 10_000.0
    monkeypatch.setattr(soundness.time, "monotonic", lambda: now)
    remember_sound(identity)
    assert is_sound(identity)
    now += soundness.TRUSTED_SECONDS
    assert not is_sound(identity)


def test_what_cannot_be_told_apart_is_never_trusted():
    identity = identify(io.BytesIO(b"content"), SHA256)
    remember_sound(identity)
    assert not is_sound(identity)


def test_the_oldest_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(soundness, "MAX_FILES", 2)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file:
        found = [identify(file, letter * 64) for letter in "abc"]
    for identity in found:
        remember_sound(identity)
    assert [is_sound(identity) for identity in found] == [False, True, True]
