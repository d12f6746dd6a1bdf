"""Score weight vectors on examples: prompts and tokens, losses, answers.

Which vectors are worth scoring is left to `composer.search`, how answers are judged to
`composer.matching` and `composer.report`.
"""

from __future__ import annotations

from composer.scoring.answers import answer_rows
from composer.scoring.encoding import (
    EncodedExample,
    PromptFormat,
    encode_examples,
    encode_prompt,
)
from composer.scoring.losses import AnswerLogits, FloatArray, Scorer, l1_penalty

__all__ = [
    "AnswerLogits",
    "EncodedExample",
    "FloatArray",
    "PromptFormat",
    "Scorer",
    "answer_rows",
    "encode_examples",
    "encode_prompt",
    "l1_penalty",
]
