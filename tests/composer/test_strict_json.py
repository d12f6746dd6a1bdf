from __future__ import annotations

import time

import pytest

from composer.strict_json import JSONError, parse_json, shown


def test_it_works():
    assert parse_json(b'{"a": [1, 2.5, null, true, "x]"]}') == {"a": [1, 2.5, None, True, "x]"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', 'the key "a" appears twice'),
        ('{"b": {"a": 1, "a": 1}}', 'the key "a" appears twice'),
        ("[NaN]", "NaN is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ("[1e999]", "the number 1e999 is too large"),
        (f"[{'9' * 5000}]", f"the number {'9' * 20}... has 5000 digits"),
        ("[" * 100_000, "it is nested deeper than 32 levels"),
        ('{"a":' * 33 + "1" + "}" * 33, "it is nested deeper than 32 levels"),
        ("\ufeff{}", "it starts with a byte order mark"),
        (b"\xef\xbb\xbf{}", "it starts with a byte order mark"),
        (b'"\xff"', "byte 1 is not UTF-8"),
        ("{} x", "Extra data at line 1, column 4"),
        ("", "Expecting value at line 1, column 1"),
    ],
)
def test_it_refuses(text: str | bytes, message: str):
    with pytest.raises(JSONError) as caught:
        parse_json(text)

    assert str(caught.value) == message


def test_brackets_in_strings_are_no_depth():
    assert parse_json('["' + "[" * 100 + '"]') == ["[" * 100]


def test_hostile_quotes_take_linear_time():
    start = time.process_time()
    with pytest.raises(JSONError):
        parse_json('"' + '\\"' * 500_000)

    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("value", "text"),
    [("a\nb", '"a\\nb"'), (None, "null"), ("x" * 100, '"' + "x" * 55 + '..."'), ([1], "[1]")],
)
def test_values_are_shown_short_and_on_one_line(value: object, text: str):
    assert shown(value) == text
