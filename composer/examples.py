"""Examples of a task: input and output pairs as users paste or upload them.

Turns text into `Example`s or says, line by line, what is wrong with it, and splits examples into
fit rows and held-out rows. Prompts, tokens and scores are left to `composer.scoring`.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from composer.errors import InvalidExamples, Problem
from composer.strict_json import JSONError, parse_json

ExampleKind = Literal["auto", "jsonl", "csv", "pairs"]

MAX_EXAMPLES = 500
MAX_EXAMPLE_BYTES = 8 * 1024
MAX_PROBLEMS = 20
MIN_ROWS_TO_SPLIT = 6
ARROW = "=>"


@dataclass(frozen=True)
class Example:
    """One row of a task: what goes in and what should come out."""

    input: str
    output: str


@dataclass(frozen=True)
class ExampleSplit:
    """Rows to search on (`fit`) and rows to judge on (`held_out`), in the order given."""

    fit: tuple[Example, ...]
    held_out: tuple[Example, ...]
    fit_indices: tuple[int, ...]
    held_out_indices: tuple[int, ...]


# A row that was read (line, example) or a complaint about it.
_Row = tuple[int, Example] | Problem


def parse_examples(text: str, kind: ExampleKind = "auto") -> tuple[Example, ...]:
    """Read examples from JSON Lines, CSV or `input => output` lines.

    Raises:
        InvalidExamples: with every problem found (the first 20 written out) and its line number.
    """
    # Spreadsheets put a byte order mark in front; it is no part of the first example.
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise InvalidExamples(_no_examples())
    readers = {"jsonl": _read_jsonl, "csv": _read_csv, "pairs": _read_pairs}
    chosen = _guess_kind(text) if kind == "auto" else kind
    rows = [_checked(row) for row in _first_rows(readers[chosen], text)]
    problems = [row for row in rows if isinstance(row, Problem)]
    examples = [row[1] for row in rows if not isinstance(row, Problem)]
    if len(rows) > MAX_EXAMPLES:
        problems.insert(0, _too_many())
    elif not rows:
        problems.append(_no_examples())
    if problems:
        raise InvalidExamples(_shortened(problems))
    return tuple(examples)


def split_examples(
    examples: Sequence[Example], *, n_fit: int | None = None, seed: int | None = None
) -> ExampleSplit:
    """Split examples into fit rows and held-out rows.

    With fewer than six rows all are fit rows: a held-out score on one or two rows says nothing.
    By default two thirds, at least 5 and at most 16, are fit rows: the first ones, or, with a
    `seed`, a random draw. Both halves keep the order given.
    """
    count = len(examples)
    if n_fit is not None and n_fit < 1:
        message = f"n_fit must be at least 1, not {n_fit}"
        raise ValueError(message)
    if count < MIN_ROWS_TO_SPLIT:
        n_fit = count
    elif n_fit is None:
        n_fit = default_fit_rows(count)
    n_fit = min(n_fit, count)
    if seed is None:
        chosen = set(range(n_fit))
    else:
        chosen = set(random.Random(seed).sample(range(count), n_fit))  # noqa: S311 - reproducible
    fit = tuple(index for index in range(count) if index in chosen)
    held_out = tuple(index for index in range(count) if index not in chosen)
    return ExampleSplit(
        fit=tuple(examples[index] for index in fit),
        held_out=tuple(examples[index] for index in held_out),
        fit_indices=fit,
        held_out_indices=held_out,
    )


def default_fit_rows(count: int) -> int:
    """Say how many of `count` rows are fit rows when the user did not choose."""
    if count < MIN_ROWS_TO_SPLIT:
        return count
    return min(16, max(5, count * 2 // 3))


def _first_rows(read: Callable[[str], Iterator[_Row]], text: str) -> list[_Row]:
    """Take one row more than allowed, so that a huge file costs no more than a full one."""
    rows: list[_Row] = []
    for row in read(text):
        rows.append(row)
        if len(rows) > MAX_EXAMPLES:
            break
    return rows


def _guess_kind(text: str) -> Literal["jsonl", "csv", "pairs"]:
    first_line = next(line for line in text.split("\n") if line.strip())
    if first_line.lstrip().startswith(("{", "[")):
        return "jsonl"
    if _header_columns(first_line.split(_delimiter(first_line))):
        return "csv"
    return "pairs" if ARROW in first_line else "csv"


def _read_jsonl(text: str) -> Iterator[_Row]:
    for number, line in _lines(text):
        try:
            value = parse_json(line)
        except JSONError as error:
            yield _problem(number, f"is not valid JSON: {error}.", _JSONL_FIX)
            continue
        if not isinstance(value, dict):
            yield _problem(number, f"is a {_json_name(value)}, not an object.", _JSONL_FIX)
            continue
        yield _example_of(number, value)


def _example_of(number: int, value: dict[str, object]) -> _Row:
    missing = [key for key in ("input", "output") if key not in value]
    if missing:
        found = ", ".join(f'"{key}"' for key in list(value)[:5]) or "no keys"
        wanted = " and ".join(f'"{key}"' for key in missing)
        return _problem(number, f"lacks {wanted} (it has {found}).", _JSONL_FIX)
    source, target = value["input"], value["output"]
    for key, item in (("input", source), ("output", target)):
        if not isinstance(item, str):
            message = f'has a {_json_name(item)} as "{key}".'
            return _problem(number, message, "Put the text into double quotes.")
    return number, Example(str(source), str(target))


def _read_csv(text: str) -> Iterator[_Row]:
    first_line = next(line for line in text.split("\n") if line.strip())
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=_delimiter(first_line), strict=True
    )
    columns: tuple[int, int] | None = None
    width = 2
    end = 0
    while True:
        # A quoted cell may hold line breaks: the row starts one line after the previous row's end.
        start = end + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield _problem(start, f"is not valid CSV ({error}).", _CSV_FIX)
            return
        end = reader.line_num
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None:
            header = _header_columns(cells)
            columns, width = (header, len(cells)) if header else ((0, 1), 2)
            if header:
                continue
        if len(cells) != width:
            message = f"has {_count(len(cells), 'column')} instead of {width}."
            yield _problem(start, message, _CSV_FIX)
        else:
            yield start, Example(cells[columns[0]], cells[columns[1]])


def _read_pairs(text: str) -> Iterator[_Row]:
    for number, line in _lines(text):
        parts = line.split(ARROW)
        if len(parts) == 1:
            yield _problem(number, f'has no "{ARROW}".', f"Write: input {ARROW} output.")
        elif len(parts) > 2:  # noqa: PLR2004 - input and output
            message = f'has {len(parts) - 1} times "{ARROW}", so input and output are unclear.'
            yield _problem(number, message, "Use JSON Lines or CSV for texts that contain it.")
        else:
            yield number, Example(parts[0].strip(), parts[1].strip())


def _checked(row: _Row) -> _Row:
    """Refuse what no model can answer and no database can store."""
    if isinstance(row, Problem):
        return row
    number, example = row
    for name, value in (("input", example.input), ("output", example.output)):
        if not value.strip():
            return _problem(number, f"has an empty {name}.", "Fill it in or delete the line.")
        if "\0" in value:
            return _problem(number, f"has a NUL character in its {name}.", "Delete it.")
        if any("\ud800" <= character <= "\udfff" for character in value):
            message = f"has half a surrogate pair in its {name}, which is no character."
            return _problem(number, message, "Save the file as UTF-8.")
    size = len(example.input.encode()) + len(example.output.encode())
    if size > MAX_EXAMPLE_BYTES:
        message = f"has {size} bytes; the limit is {MAX_EXAMPLE_BYTES} for input and output."
        return _problem(number, message, "Shorten the input.")
    return row


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(): it also breaks at characters that belong to the text, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _delimiter(first_line: str) -> str:
    """Accept what spreadsheets write: comma, and semicolon or tab under a header."""
    for delimiter in ("\t", ";"):
        if _header_columns(first_line.rstrip("\r\n").split(delimiter)):
            return delimiter
    return ","


def _header_columns(cells: Sequence[str]) -> tuple[int, int] | None:
    names = [cell.strip().strip('"').lower() for cell in cells]
    if names.count("input") == 1 and names.count("output") == 1:
        return names.index("input"), names.index("output")
    return None


def _shortened(problems: list[Problem]) -> list[Problem]:
    if len(problems) <= MAX_PROBLEMS:
        return problems
    more = len(problems) - MAX_PROBLEMS
    rest = Problem("examples", "", f"{more} more lines have problems.", "")
    return [*problems[:MAX_PROBLEMS], rest]


def _problem(number: int, message: str, fix: str) -> Problem:
    return Problem("examples", f"line {number}", message, fix)


def _no_examples() -> Problem:
    return Problem("examples", "", "There are no examples.", "Give at least one input and output.")


def _too_many() -> Problem:
    message = f"There are more than {MAX_EXAMPLES} examples, which is the limit."
    return Problem("examples", "", message, "Keep the most typical ones.")


def _json_name(value: object) -> str:
    names = {bool: "true or false", int: "number", float: "number", list: "list", dict: "object"}
    return names.get(type(value), "null" if value is None else "string")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_JSONL_FIX = f"Write one object a line: {json.dumps({'input': '...', 'output': '...'})}."
_CSV_FIX = "Write two columns, input and output; put a cell that contains commas into quotes."
