"""How an answer is judged against the expected one: exact match and ROUGE-L, on plain texts."""

from __future__ import annotations

import re
from collections.abc import Sequence


def is_match(answer: str, expected: str, *, exact_case: bool = False) -> bool:
    """Compare after strip, lower-case (unless `exact_case`) and removal of one final full stop."""
    return _normalised(answer, exact_case) == _normalised(expected, exact_case)


def rouge_l(answer: str, expected: str) -> float:
    """Return the ROUGE-L F-measure over lower-case words: 0 nothing in common, 1 the same words."""
    found, wanted = _words(answer), _words(expected)
    if not found or not wanted:
        return float(found == wanted)
    common = _longest_common_subsequence(found, wanted)
    return 2 * common / (len(found) + len(wanted))


def _normalised(text: str, exact_case: bool) -> str:  # noqa: FBT001 - private and read once
    text = text.strip().removesuffix(".").strip()
    return text if exact_case else text.lower()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    lengths = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, start=1):
            diagonal, lengths[j] = (
                lengths[j],
                diagonal + 1 if word == other else max(lengths[j], lengths[j - 1]),
            )
    return lengths[-1]
