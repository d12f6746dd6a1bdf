"""Compose LoRA adapters for a task from a few examples: the whole method in one function.

`compose` reads like the method's summary: load the base, select candidates, search their weights on
the fit rows, merge, score everything on the held-out rows, write one PEFT adapter with its card and
recipe. Each step is a module of its own; who calls this, where jobs are stored and who sees the
result is left to the caller.
"""

from __future__ import annotations

from composer.composing.method import compose
from composer.composing.request import ComposeRequest, Composition
from composer.progress import (
    AnswersScored,
    CandidateScored,
    EvaluationScored,
    LogLine,
    PhaseStarted,
    Progress,
    ReferenceScored,
    TrainingStepped,
    ignore,
    never,
)
from composer.selection import PoolMember

__all__ = [
    "AnswersScored",
    "CandidateScored",
    "ComposeRequest",
    "Composition",
    "EvaluationScored",
    "LogLine",
    "PhaseStarted",
    "PoolMember",
    "Progress",
    "ReferenceScored",
    "TrainingStepped",
    "compose",
    "ignore",
    "never",
]
