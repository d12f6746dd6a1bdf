"""Tell what `./dev` is doing: one line a step, alive while it runs, with its time at the end.

In a terminal the line of the running step is redrawn (a bar where the amount of work is known);
elsewhere a line is printed when a step has taken a while, so that a log stays short.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from marketplace.embedded.errors import EmbeddedError, Interrupted
from marketplace.embedded.processes import Pause, read_tail

BAR_WIDTH = 20
TITLE_WIDTH = 26
REDRAW_SECONDS = 0.1
REMIND_SECONDS = 15.0
SHOW_AFTER_SECONDS = 2.0


class Console:
    """Writes steps, lines and failures to one stream."""

    def __init__(self, pause: Pause = time.sleep, stream: TextIO | None = None) -> None:
        self.pause = pause
        self.stream = stream if stream is not None else sys.stdout
        self.is_terminal = self.stream.isatty()
        unicode = "utf" in (getattr(self.stream, "encoding", None) or "").lower()
        self.done_mark, self.failed_mark, self.busy_marks = (
            ("✓", "✗", "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏") if unicode else ("ok", "FAILED", "|/-\\")
        )

    def line(self, text: str = "") -> None:
        """Print one line at once, also into a pipe."""
        self.stream.write(f"{text}\n")
        self.stream.flush()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step while the block runs; mark it as done or failed after it."""
        step = Step(self, title)
        try:
            yield step
        except Interrupted:
            step.finish("-", "stopped")
            raise
        except BaseException:
            step.finish(self.failed_mark, "")
            raise
        step.finish(self.done_mark, step.note)

    def failure(self, error: EmbeddedError) -> None:
        """Print what went wrong, what to do about it, and the end of the log."""
        self.line()
        self.line(f"{self.failed_mark} {error.message}")
        if error.fix:
            self.line(f"  What to do: {error.fix}")
        if error.log is not None:
            self.line(f"  The log is {error.log}; it ends with:")
            for text in (read_tail(error.log) or "(nothing was written)").splitlines():
                self.line(f"    {text}")


class Step:
    """A step that is running."""

    def __init__(self, console: Console, title: str) -> None:
        self.console = console
        self.title = title
        self.note = ""
        self._done = 0
        self._total = 0
        self._started = time.monotonic()
        self._shown = self._started

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Tell how much of the work is done; 0 of 0 means that it is not known."""
        self._done, self._total, self.note = min(done, total), total, note

    def pause(self, seconds: float) -> None:
        """Wait a moment, keeping the line alive."""
        now = time.monotonic()
        if self.console.is_terminal and now - self._shown > REDRAW_SECONDS:
            self._shown = now
            self._redraw()
        elif not self.console.is_terminal and now - self._shown > self._patience():
            self._shown = now
            self.console.line(f"… {self._text()}")
        self.console.pause(seconds)

    def finish(self, mark: str, note: str) -> None:
        """Replace the running line by the final one."""
        if self.console.is_terminal:
            self.console.stream.write("\r\x1b[2K")
        text = f"{mark} {self.title:<{TITLE_WIDTH}} {note}".rstrip()
        self.console.line(f"{text}  ({self._seconds():.1f} s)")

    def _patience(self) -> float:
        return SHOW_AFTER_SECONDS if self._shown == self._started else REMIND_SECONDS

    def _redraw(self) -> None:
        marks = self.console.busy_marks
        mark = marks[int(self._seconds() * 8) % len(marks)]
        width = shutil.get_terminal_size().columns - 1
        self.console.stream.write(f"\r\x1b[2K{mark} {self._text()}"[: width + 5])
        self.console.stream.flush()

    def _text(self) -> str:
        parts = [f"{self.title:<{TITLE_WIDTH}}"]
        if self._total:
            filled = BAR_WIDTH * self._done // self._total
            parts.append(f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}]")
        parts.append(f"{self._seconds():.0f} s")
        if self.note:
            parts.append(self.note)
        return "  ".join(parts)

    def _seconds(self) -> float:
        return time.monotonic() - self._started
