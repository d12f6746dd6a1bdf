"""JSON as the specification has it, without the liberties of `json.loads`.

Duplicate keys, NaN, infinities, numbers of absurd length and too deep nesting are refused: two
readers that disagree about such a text are how a checked file becomes another file. What the values
mean is left to the callers.
"""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

MAX_DEPTH = 32

# A string may end with the text, so that an unclosed one is passed over once: the scan is linear.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.?)*+"?|[\[\]{}]', re.DOTALL)


class JSONError(ValueError):
    """A text that is not strict JSON; the message completes "is not valid JSON: ..."."""


def parse_json(text: str | bytes) -> object:
    """Parse strict JSON.

    Raises:
        JSONError: for anything else, whatever the bytes are.
    """
    if isinstance(text, bytes):
        text = _decoded(text)
    if text.startswith("\ufeff"):
        message = "it starts with a byte order mark"
        raise JSONError(message)
    _refuse_depth(text)
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_short_int,
        )
    except JSONError:
        raise
    except json.JSONDecodeError as error:
        message = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise JSONError(message) from None


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"byte {error.start} is not UTF-8"
        raise JSONError(message) from None


def _refuse_depth(text: str) -> None:
    # Counted before parsing, because the parser recurses.
    depth = 0
    for mark in _STRING_OR_BRACKET.findall(text):
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                message = f"it is nested deeper than {MAX_DEPTH} levels"
                raise JSONError(message)
        elif mark in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            message = f"the key {shown(key)} appears twice"
            raise JSONError(message)
        result[key] = value
    return result


def shown(value: object, limit: int = 60) -> str:
    """Quote a value from a stranger's file for a message: short, printable, one line."""
    text = json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= limit else f"{text[: limit - 4]}...{text[-1]}"


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not a JSON number"
    raise JSONError(message)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        message = f"the number {digits[:20]} is too large"
        raise JSONError(message)
    return value


def _short_int(digits: str) -> int:
    if len(digits) > 20:  # noqa: PLR2004 - every 64-bit number has at most 20 characters
        message = f"the number {digits[:20]}... has {len(digits)} digits"
        raise JSONError(message)
    return int(digits)
