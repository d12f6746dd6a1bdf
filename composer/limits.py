"""Sizes and ranges that an adapter must keep, in one place so that messages and checks agree.

The site and the library use the same defaults; a caller with other needs passes its own `Limits`.
Request sizes, quotas and rates are not here: they belong to the site.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Limits:
    """Upper bounds that the readers enforce before they allocate anything."""

    weights_bytes: int = 256 * MIB
    config_bytes: int = 64 * KIB
    header_bytes: int = 1 * MIB
    tensors: int = 4096
    key_length: int = 256
    rank: int = 256
    alpha: float = 65536.0
    target_modules: int = 64
    pattern_keys: int = 512
    pattern_length: int = 1024
    # A checkpoint's pickle holds about 250 bytes per tensor; the numbers lie outside it.
    pickle_bytes: int = 2 * MIB


DEFAULT = Limits()
