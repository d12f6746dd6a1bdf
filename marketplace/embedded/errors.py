"""What can go wrong while servers are found, started and stopped.

Every error carries what happened and what the reader can do about it; nothing here prints.

EmbeddedError
├── MissingServer     no usable server program on this machine
├── ServerFailed      a server program ended or did not become ready in time
├── AlreadyRunning    another supervisor holds the data folder
├── StepFailed        a step of `./dev` ended with an error
└── Interrupted       the user asked to stop
"""

from __future__ import annotations

from pathlib import Path


class EmbeddedError(Exception):
    """A failure with its remedy and, where there is one, the log that tells more."""

    def __init__(self, message: str, *, fix: str = "", log: Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.log = log


class MissingServer(EmbeddedError):
    """No usable server program on this machine."""


class ServerFailed(EmbeddedError):
    """A server program ended or did not become ready in time."""


class AlreadyRunning(EmbeddedError):
    """Another supervisor holds the data folder."""


class StepFailed(EmbeddedError):
    """A step of `./dev` ended with an error."""


class Interrupted(EmbeddedError):
    """The user asked to stop."""

    def __init__(self) -> None:
        super().__init__("Stopped on request.")
