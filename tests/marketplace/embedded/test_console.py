from __future__ import annotations

import io
from pathlib import Path

import pytest

from marketplace.embedded import console as console_module
from marketplace.embedded.console import Console
from marketplace.embedded.errors import EmbeddedError, Interrupted


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Pipe(Terminal):
    encoding = "ascii"

    def isatty(self) -> bool:
        return False


def no_pause(_seconds: float) -> None:
    """Let time stand still."""


def test_it_works():
    stream = Pipe()
    with Console(no_pause, stream).step("Database") as step:
        step.note = "15 (system)"
    assert stream.getvalue().startswith("ok Database                   15 (system)  (0.0 s)")


def test_a_failed_and_a_stopped_step_are_marked():
    stream = Pipe()
    console = Console(no_pause, stream)
    with pytest.raises(ValueError, match="x"), console.step("One"):
        raise ValueError("x")
    with pytest.raises(Interrupted), console.step("Two"):
        raise Interrupted
    assert "FAILED One" in stream.getvalue()
    assert "- Two" in stream.getvalue()
    assert "stopped" in stream.getvalue()


def test_a_terminal_shows_a_bar_where_the_amount_is_known(monkeypatch):
    monkeypatch.setattr(console_module, "REDRAW_SECONDS", -1.0)
    stream = Terminal()
    with Console(no_pause, stream).step("Packages") as step:
        step.progress(5, 10, "collecting torch")
        step.pause(0)
    assert "[##########..........]" in stream.getvalue()
    assert "collecting torch" in stream.getvalue()
    assert "✓ Packages" in stream.getvalue()


def test_a_pipe_is_told_of_slow_steps_only(monkeypatch):
    stream = Pipe()
    console = Console(no_pause, stream)
    with console.step("Quick") as step:
        step.pause(0)
    assert len(stream.getvalue().splitlines()) == 1
    monkeypatch.setattr(console_module, "SHOW_AFTER_SECONDS", -1.0)
    with console.step("Slow") as step:
        step.progress(0, 0, "converting")
        step.pause(0)
        step.pause(0)  # the next reminder comes later
    assert "Slow                        0 s  converting" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 3


def test_a_failure_says_what_to_do_and_shows_the_end_of_the_log(tmp_path):
    log = tmp_path / "thing.log"
    log.write_text("first\n" * 50 + "last words\n")
    stream = Pipe()
    console = Console(no_pause, stream)
    console.failure(EmbeddedError("It broke.", fix="Mend it.", log=log))
    text = stream.getvalue()
    assert "It broke." in text
    assert "What to do: Mend it." in text
    assert "    last words" in text
    assert text.count("first") < 50
    console.failure(EmbeddedError("Bare.", log=Path("/no/such/log")))
    assert "(nothing was written)" in stream.getvalue()
