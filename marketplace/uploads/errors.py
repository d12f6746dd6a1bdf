"""What an upload is refused for before and after inspection, in sentences for the user.

UploadError            .problems by field, .status for the API
├── TooLarge           413: a file or the whole upload passes its limit
├── WrongHash          422: the bytes are not those that were announced
├── NoRoom             507: the site's disk is full
└── Conflict           409: the draft is not in a state for this
    └── Busy           409, with .retry_after: another request has to end first
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class UploadError(Exception):
    """A request that cannot be done as it is."""

    status = 400

    def __init__(self, problems: Mapping[str, Sequence[str]] | str, *, field: str = "") -> None:
        found = {field: [problems]} if isinstance(problems, str) else problems
        self.problems = {name: list(texts) for name, texts in found.items()}
        super().__init__(" ".join(text for texts in self.problems.values() for text in texts))


class TooLarge(UploadError):
    """A file or the whole upload passes its limit."""

    status = 413


class WrongHash(UploadError):
    """The bytes are not those that were announced."""

    status = 422


class NoRoom(UploadError):
    """The disk of the site is full."""

    status = 507


class Conflict(UploadError):
    """The draft is not in a state for this."""

    status = 409


class Busy(Conflict):
    """Another request has to end first."""

    retry_after = 2
