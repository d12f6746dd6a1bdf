"""How the site writes numbers: signs, losses, shares, sizes, ages and durations as text.

Pure functions, used by the template filters and by the charts; the same number must read the
same in a table, beside a chart and in a chart's sentence. Rounding for storage or for
comparison is left to whoever owns the number.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

MINUS = "\u2212"
NONE = "\u2013"
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_KILO = 1000
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_AGES = (
    (365 * _DAY, "year"),
    (30 * _DAY, "month"),
    (_DAY, "day"),
    (_HOUR, "hour"),
    (_MINUTE, "minute"),
)


def format_signed(value: float | None, digits: int = 2) -> str:
    """Write a weight with its sign (minus is U+2212): ``+0.74``, and ``0.00`` without one."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def format_loss(value: float | None) -> str:
    """Write a loss with two decimals; an unknown one is a dash."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.2f}".replace("-", MINUS)


def format_percent(share: float | None) -> str:
    """Write a share from 0 to 1 as whole per cent."""
    if share is None or not math.isfinite(share):
        return NONE
    return f"{100 * share:.0f} %"


def format_size(size: float | None) -> str:
    """Write bytes in decimal units with one decimal: ``476.2 kB``, ``3.8 MB``, ``12 bytes``."""
    if size is None:
        return NONE
    value = float(size)
    for unit in _UNITS:
        # 999.95 would print as 1000.0, so the next unit starts just below the thousand.
        if abs(value) < _KILO - 0.05 or unit == _UNITS[-1]:
            break
        value /= _KILO
    if unit == "bytes":
        return "1 byte" if value == 1 else f"{value:.0f} bytes"
    return f"{value:.1f} {unit}"


def format_thousands(value: float | None) -> str:
    """Write a count with commas: ``1,204,511``."""
    return NONE if value is None else f"{value:,.0f}".replace("-", MINUS)


def format_age(then: datetime | None, now: datetime) -> str:
    """Write the time since ``then`` in its largest unit: ``3 hours``; ``just now`` below 1 min."""
    if then is None:
        return NONE
    seconds = (now - then).total_seconds()
    for length, unit in _AGES:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "just now"


def format_duration(duration: timedelta | float | None) -> str:
    """Write how long something took or will take: ``0.4 s``, ``38 s``, ``2 min 5 s``, ``1 h``."""
    if duration is None:
        return NONE
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if not math.isfinite(seconds):
        return NONE
    seconds = max(0.0, seconds)
    if 0 < seconds < 1:
        return f"{max(seconds, 0.1):.1f} s"
    whole = round(seconds)
    for length, unit, small, small_unit in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= length:
            rest = whole % length // small
            return f"{whole // length} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{whole} s"
