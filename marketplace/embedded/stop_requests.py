"""Turn Ctrl-C, SIGTERM and SIGHUP into one orderly stop.

A signal only leaves a mark; the waiting places read it and raise `Interrupted`, so that nothing is
ever cut in half. While things are being stopped further signals are ignored, until the third one,
after which the kernel ends the children (see `processes`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import types

from marketplace.embedded.errors import Interrupted

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 3  # so many requests end the supervisor at once


class StopRequests:
    """The stop signals of this process, as something that can be waited for."""

    def __init__(self) -> None:
        self._count = 0
        self._shielded = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def listen(self) -> None:
        """Take over the stop signals; SIGCHLD wakes `pause`, so that a dying child is seen."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than until the next signal; raise if a stop was requested."""
        self.check()
        with contextlib.suppress(InterruptedError):
            select.select([self._reader], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 512)
        self.check()

    def check(self) -> None:
        """Raise `Interrupted` if a stop was requested."""
        if self._count and not self._shielded:
            raise Interrupted

    def shield(self) -> None:
        """From now on finish what is being done: stopping must not be stopped half-way."""
        self._shielded = True

    def _note(self, number: int, _frame: types.FrameType | None) -> None:
        self._count += 1
        if self._count >= PATIENCE:
            os._exit(128 + number)
