"""How much texts look alike: a cosine over weighted pieces of words, in plain Python.

Pieces of four letters and whole words are counted, rare ones weigh more. It sees format (lists,
dates, questions) as well as vocabulary, needs no model, and is quick for a thousand adapters.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping

MAX_CHARACTERS = 2000
PIECE = 4
_WORD = re.compile(r"\w+|[^\w\s]")


def rank_by_resemblance(wanted: str, texts: Mapping[int, str]) -> list[tuple[int, float]]:
    """Return (key, cosine) of the texts that share anything with `wanted`, the nearest first."""
    counts = {key: _count_pieces(text) for key, text in texts.items()}
    given = _count_pieces(wanted)
    spread = Counter(piece for pieces in counts.values() for piece in pieces if piece in given)
    weights = {piece: math.log((1 + len(texts)) / (1 + spread[piece])) + 1 for piece in given}
    nearness = {key: _cosine(given, pieces, weights) for key, pieces in counts.items()}
    found = [(key, value) for key, value in nearness.items() if value > 0]
    return sorted(found, key=lambda item: (-item[1], item[0]))


def _count_pieces(text: str) -> Counter[str]:
    words = _WORD.findall(text[:MAX_CHARACTERS].lower())
    return Counter(piece for word in words for piece in _pieces(word))


def _pieces(word: str) -> Iterable[str]:
    yield "0" if word.isdigit() else word
    padded = f" {word} "
    for start in range(max(len(padded) - PIECE + 1, 0)):
        yield padded[start : start + PIECE]


def _cosine(given: Counter[str], pieces: Counter[str], weights: Mapping[str, float]) -> float:
    shared = given.keys() & pieces.keys()
    product = sum(
        (1 + math.log(given[piece])) * (1 + math.log(pieces[piece])) * weights[piece] ** 2
        for piece in shared
    )
    # The length of the other text is estimated from its size: its own rare pieces say little here.
    return product / math.sqrt(1 + len(pieces))
