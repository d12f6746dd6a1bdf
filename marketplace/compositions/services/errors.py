"""What a composition request is refused for, in sentences for the user, by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class CompositionError(Exception):
    """A request that cannot be done as it is; `problems` are sentences by field."""

    def __init__(self, problems: Mapping[str, Sequence[str]]) -> None:
        super().__init__(" ".join(text for texts in problems.values() for text in texts))
        self.problems = {name: list(texts) for name, texts in problems.items()}
