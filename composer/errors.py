"""Errors of the composer, named for what went wrong and carrying the facts a message needs.

Whose fault it is decides the branch: everything below `ComposerError` has a text that may be shown
to a user as it stands; any other exception is a mistake of ours and belongs in a log.

    ComposerError
    ├── InvalidInput                   .problems: every problem found, not only the first
    │   ├── InvalidAdapter             a folder that is not a complete, supported LoRA adapter
    │   └── InvalidExamples            rows that cannot be used, with their line numbers
    ├── IncompatibleAdapters           .reasons: why these adapters cannot be merged this way
    ├── BaseModelError                 a base model that is missing, unreadable or unsupported
    ├── SearchError                    a search that cannot start or did not converge
    ├── ResourceError
    │   ├── InsufficientMemory         the adapters and examples do not fit into memory
    │   └── StorageFull                the result cannot be written
    └── Stopped                        the caller asked to stop; the checkpoint is kept
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong, and how to mend it.

    `file` and `field` say where ("adapter_config.json", "r"); either may be empty.
    """

    file: str
    field: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.file, self.field) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} {self.fix}".rstrip()

    def to_dict(self) -> dict[str, str]:
        """Return the problem as plain strings, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Problem:
        """Rebuild a problem that `to_dict` wrote."""
        return cls(
            file=str(data.get("file", "")),
            field=str(data.get("field", "")),
            message=str(data.get("message", "")),
            fix=str(data.get("fix", "")),
        )


class ComposerError(Exception):
    """Root of everything the composer raises on purpose."""


class InvalidInput(ComposerError):
    """Input that was refused, with all its problems."""

    problems: tuple[Problem, ...]

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class InvalidAdapter(InvalidInput):
    """A folder that is not a complete, supported LoRA adapter."""


class InvalidExamples(InvalidInput):
    """Example rows that cannot be used."""


class IncompatibleAdapters(ComposerError):
    """Adapters that cannot be merged by the chosen method."""

    reasons: tuple[str, ...]

    def __init__(self, reasons: str | Iterable[str]) -> None:
        self.reasons = (reasons,) if isinstance(reasons, str) else tuple(reasons)
        super().__init__(self.reasons)

    def __str__(self) -> str:
        return "\n".join(self.reasons)


class BaseModelError(ComposerError):
    """A base model that is missing, unreadable or unsupported."""


class SearchError(ComposerError):
    """A search that cannot start or did not converge."""


class ResourceError(ComposerError):
    """The machine is too small for the work; the input is fine."""


class InsufficientMemory(ResourceError):
    """The adapters and examples do not fit into memory."""


class StorageFull(ResourceError):
    """The result cannot be written because the disk is full."""


class Stopped(ComposerError):
    """The caller asked to stop; the checkpoint, if there is one, is kept."""
