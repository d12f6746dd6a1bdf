"""What the shelf refuses, in sentences for the user, by the field they belong to.

CatalogueError         .problems: every problem found, by field
└── PublishError       a revision or a card that cannot be put on the shelf
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


class CatalogueError(Exception):
    """A request the shelf cannot do; `problems` are sentences for the user, by field."""

    def __init__(self, problems: Mapping[str, Sequence[str]]) -> None:
        super().__init__(" ".join(text for texts in problems.values() for text in texts))
        self.problems = {name: list(texts) for name, texts in problems.items()}


class PublishError(CatalogueError):
    """A revision cannot be published, or a card cannot be changed as asked."""


class Problems:
    """Collects sentences by field, so that a user sees all of them at once."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}

    def add(self, name: str, *texts: str) -> None:
        """Add sentences to a field; none adds nothing."""
        if texts:
            self._texts.setdefault(name, []).extend(texts)

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        return iter(self._texts.items())

    def __bool__(self) -> bool:
        return bool(self._texts)

    def raise_if_any(self) -> None:
        """Raise PublishError with everything collected.

        Raises:
            PublishError: where there is at least one problem.
        """
        if self._texts:
            raise PublishError(self._texts)
