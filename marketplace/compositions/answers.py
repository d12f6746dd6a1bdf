"""The answers of a report side by side, as the job's page shows them.

Inputs of one task mostly share their instruction. It is told once above the table, so that a row
shows what sets it apart; the report itself keeps every input whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_SHARED = 16  # characters; telling less apart would save nothing
_PREFIX_ENDS = re.compile(r"\n\s*|[.?!:]\s+")
_SUFFIX_BEGINS = re.compile(r"\s*\n")


@dataclass(frozen=True)
class AnswerRow:
    """One row of the user's task: `cells` are each method's answer and whether it is right."""

    number: int
    input: str  # without what all inputs share
    expected: str
    cells: tuple[tuple[str, bool | None], ...]


@dataclass(frozen=True)
class AnswerTable:
    """The rows that judge, all or those on which the methods differ."""

    before: str  # what every input begins with
    after: str  # what every input ends with
    rows: tuple[AnswerRow, ...]


def read_answers(report: Mapping[str, Any], *, show_all: bool) -> AnswerTable:
    """Return the held-out rows of a report, or the fit rows where nothing was held out."""
    methods = [row["method"] for row in report.get("rows", [])]
    side = "held_out" if report.get("n_held_out") else "fit"
    answers = report.get("answers", [])
    before, after = find_shared([answer["input"] for answer in answers])
    found = []
    for number, answer in enumerate(answers, start=1):
        right = answer.get("correct", {})
        differ = len({bool(right.get(method)) for method in methods}) > 1
        if answer.get("split") == side and (show_all or differ):
            text = answer["input"][len(before) : len(answer["input"]) - len(after)]
            cells = tuple((answer["answers"].get(name, ""), right.get(name)) for name in methods)
            found.append(AnswerRow(number, text, answer.get("expected", ""), cells))
    return AnswerTable(before, after, tuple(found))


def find_shared(inputs: Sequence[str]) -> tuple[str, str]:
    """Return what all inputs begin and end with, cut where a line or a sentence ends.

    Both are empty where the beginning is too short to be an instruction, or nothing would be left.
    """
    if len(set(inputs)) < 2:  # noqa: PLR2004 - one row shares nothing with others
        return "", ""
    common = _common_beginning(inputs)
    ends = [match.end() for match in _PREFIX_ENDS.finditer(common)]
    before = common[: ends[-1]] if ends else ""
    if len(before) < LEAST_SHARED:
        return "", ""
    rests = [text[len(before) :] for text in inputs]
    common = _common_beginning([text[::-1] for text in rests])[::-1]
    begins = _SUFFIX_BEGINS.search(common)
    after = common[begins.start() :] if begins else ""
    if any(not rest[: len(rest) - len(after)].strip() for rest in rests):
        return "", ""
    return before, after


def _common_beginning(texts: Sequence[str]) -> str:
    # The first and the last in order differ at least as early as any other two.
    first, last = min(texts), max(texts)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return first[:length]
