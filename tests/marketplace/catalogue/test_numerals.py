from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from marketplace.catalogue import numerals

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def test_it_works():
    assert numerals.format_signed(0.741) == "+0.74"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.27, "\u22120.27"),
        (0.0, "0.00"),
        (-0.001, "0.00"),
        (None, "\u2013"),
        (float("nan"), "\u2013"),
    ],
)
def test_a_weight_has_a_sign_unless_it_prints_as_zero(value, text):
    assert numerals.format_signed(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.333, "0.33"), (None, "\u2013"), (float("inf"), "\u2013"), (-1, "\u22121.00")],
)
def test_a_loss_has_two_decimals(value, text):
    assert numerals.format_loss(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.9166, "92 %"), (0, "0 %"), (None, "\u2013")])
def test_a_share_is_whole_per_cent(value, text):
    assert numerals.format_percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\u2013"),
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (476_234, "476.2 kB"),
        (999_960, "1.0 MB"),
        (3_840_000, "3.8 MB"),
        (5_000_000_000_000_000, "5000.0 TB"),
    ],
)
def test_bytes_are_written_in_decimal_units(value, text):
    assert numerals.format_size(value) == text


@pytest.mark.parametrize(("value", "text"), [(1204511, "1,204,511"), (0, "0"), (None, "\u2013")])
def test_counts_have_commas(value, text):
    assert numerals.format_thousands(value) == text


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(seconds=20), "just now"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(hours=3, minutes=59), "3 hours"),
        (timedelta(days=12), "12 days"),
        (timedelta(days=70), "2 months"),
        (timedelta(days=800), "2 years"),
        (timedelta(seconds=-5), "just now"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(ago, text):
    assert numerals.format_age(NOW - ago, NOW) == text


def test_an_unknown_age_is_a_dash():
    assert numerals.format_age(None, NOW) == "\u2013"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\u2013"),
        (float("nan"), "\u2013"),
        (0, "0 s"),
        (0.04, "0.1 s"),
        (0.44, "0.4 s"),
        (38.2, "38 s"),
        (timedelta(minutes=2, seconds=5), "2 min 5 s"),
        (3600, "1 h"),
        (93600, "1 d 2 h"),
        (-3, "0 s"),
    ],
)
def test_a_duration_has_at_most_two_units(value, text):
    assert numerals.format_duration(value) == text
