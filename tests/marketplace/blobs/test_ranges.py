from __future__ import annotations

import pytest

from marketplace.blobs.ranges import (
    Part,
    UnsatisfiableRange,
    fails_if_match,
    is_unmodified,
    read_range,
)

ETAG = '"abc"'


def asked(header: str | None, *, size: int = 100, if_range: str | None = None) -> Part | None:
    headers = {"Range": header, "If-Range": if_range}
    given = {name: value for name, value in headers.items() if value is not None}
    return read_range(given, size=size, etag=ETAG)


def test_it_works():
    assert asked("bytes=10-19") == Part(10, 20)
    assert Part(10, 20).length == 10


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", Part(0, 1)),
        ("bytes=99-99", Part(99, 100)),
        ("bytes=90-", Part(90, 100)),
        ("bytes=-10", Part(90, 100)),
        ("bytes=-1000", Part(0, 100)),
        ("bytes=90-1000", Part(90, 100)),
        ("bytes=0-18446744073709551615", Part(0, 100)),
        ("Bytes=0-0", Part(0, 1)),
        (" bytes=0-0 ", Part(0, 1)),
    ],
)
def test_single_ranges_of_every_kind(header, part):
    assert asked(header) == part


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999-"])
def test_a_range_outside_the_file_cannot_be_satisfied(header):
    with pytest.raises(UnsatisfiableRange):
        asked(header)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-1", "bytes=0-0"])
def test_an_empty_file_has_no_ranges(header):
    with pytest.raises(UnsatisfiableRange):
        asked(header, size=0)


@pytest.mark.parametrize(
    "header",
    [
        None, "", "bytes", "bytes=", "bytes=-", "bytes=5-3", "bytes=a-b", "bytes=0-0,5-9",
        "bytes=" + ",".join(["0-0"] * 1000), "items=0-1", "bytes=0x1-2", "bytes=--1",
        "bytes=" + "9" * 30 + "-", "bytes=\u0663-\u0664",
    ],
)  # fmt: skip
def test_anything_else_asks_for_the_whole(header):
    assert asked(header) is None


@pytest.mark.parametrize(
    ("if_range", "part"),
    [
        (ETAG, Part(0, 10)),
        ('"other"', None),
        (f"W/{ETAG}", None),
        ("Tue, 24 Nov 2026 01:00:00 GMT", None),
    ],
)
def test_if_range_keeps_the_parts_of_two_versions_apart(if_range, part):
    assert asked("bytes=0-9", if_range=if_range) == part


@pytest.mark.parametrize(
    ("header", "unmodified"),
    [
        (ETAG, True), (f"W/{ETAG}", True), (f'"x", {ETAG}', True), ("*", True),
        ('"x"', False), ("abc", False), ("", False), (None, False),
    ],
)  # fmt: skip
def test_if_none_match(header, unmodified):
    headers = {} if header is None else {"If-None-Match": header}
    assert is_unmodified(headers, etag=ETAG) is unmodified


@pytest.mark.parametrize(
    ("header", "fails"),
    [
        (ETAG, False),
        ("*", False),
        (f'"x", {ETAG}', False),
        ('"x"', True),
        (f"W/{ETAG}", True),
        (None, False),
    ],
)
def test_if_match(header, fails):
    headers = {} if header is None else {"If-Match": header}
    assert fails_if_match(headers, etag=ETAG) is fails
