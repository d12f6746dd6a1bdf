"""The peak of this very process, as the kernel tells it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from marketplace.compositions import memory

MIB = 1024**2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_it_works():
    memory.forget_peak()
    before = memory.read_peak()
    held = bytearray(b"x") * (64 * MIB)
    assert memory.read_peak() >= before + 48 * MIB
    del held
    memory.forget_peak()
    assert memory.read_peak() < before + 48 * MIB


def test_where_the_system_does_not_tell_there_is_no_figure(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none" / "status")
    monkeypatch.setattr(memory, "_FORGET", tmp_path / "none" / "clear_refs")
    memory.forget_peak()
    assert memory.read_peak() is None
    monkeypatch.setattr(memory, "_STATUS", Path(__file__))
    assert memory.read_peak() is None
