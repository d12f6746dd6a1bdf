"""What all charts do with their input: read fields and numbers, and write positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def read_field(item: object, name: str, default: Any = None) -> Any:
    """Read ``name`` from a mapping or an object, so that charts take rows of either kind."""
    if isinstance(item, Mapping):
        return item.get(name, default)
    return getattr(item, name, default)


def finite(value: object) -> float | None:
    """Return ``value`` as a finite float, or None for a missing, NaN or infinite one."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def tenth(value: float) -> str:
    """Write a position with one decimal and a dot, whatever the active locale."""
    return f"{value:.1f}".replace("-0.0", "0.0")


def clamp(value: float, low: float, high: float) -> float:
    """Keep a value between two bounds."""
    return max(low, min(high, value))
