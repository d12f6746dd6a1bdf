"""From a pool of adapters to the candidates of one search."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from composer.examples import Example

Selection = Literal["screened", "all", "random", "similar"]


@dataclass(frozen=True)
class PoolMember:
    """An adapter that may become a candidate, with what is known about it beyond its weights."""

    name: str
    folder: Path
    revision: str = ""
    card_text: str = field(default="", repr=False)
    samples: tuple[Example, ...] = field(default=(), repr=False)
