"""Score the base, the best single adapter, the uniform mean and the composition on the same rows.

All methods go through one stack and the same batches, so that differences are differences of
weights and not of layouts. What the figures mean is said by `composer.report`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from composer.adapter import LoraAdapter
from composer.base_model import LoadedBase
from composer.errors import Stopped
from composer.examples import Example, ExampleSplit
from composer.progress import AnswersScored, OnProgress, ShouldStop
from composer.report import Method, MethodResult, choose_metric
from composer.scoring import PromptFormat, Scorer, answer_rows, encode_examples, encode_prompt
from composer.stacking import AdapterStack

# An answer that is longer than every expected one by this much is no exact match anyway; where
# answers are sentences (ROUGE-L) it may be half as long again.
ANSWER_SLACK = 4
# What stands between two shots of a prompt. A model that was shown several goes on with the next
# one after its answer: unless answers contain it themselves, the answer ends there.
SHOT_BREAK = "\n\n"


@dataclass(frozen=True)
class Judge:
    """How to judge: the rows, the prompt, and whom to tell."""

    base: LoadedBase
    split: ExampleSplit
    prompt_format: PromptFormat
    max_new_tokens: int
    on_progress: OnProgress
    should_stop: ShouldStop


def judge_methods(
    judge: Judge, methods: Mapping[Method, LoraAdapter | None], *, prompting: bool = False
) -> dict[Method, MethodResult]:
    """Answer and score all rows with each method; None stands for the base alone.

    Fit rows come first in every result, then the held-out rows.
    """
    rows = [*judge.split.fit, *judge.split.held_out]
    encoded = encode_examples(judge.base, rows, judge.prompt_format)
    stacked = [adapter for adapter in methods.values() if adapter is not None]
    places = {
        method: i
        for i, method in enumerate(name for name, adapter in methods.items() if adapter is not None)
    }
    weights = np.zeros((len(methods), max(1, len(stacked))))
    for i, method in enumerate(methods):
        if method in places:
            weights[i, places[method]] = 1.0
    n_new = _answer_length(judge, max(len(row.answer) for row in encoded), rows)
    scorer = Scorer(judge.base, encoded, should_stop=judge.should_stop)
    results: dict[Method, MethodResult] = {}
    with AdapterStack(judge.base, stacked) as stack:
        losses = scorer.losses(stack, weights)  # (methods, rows)
        for i, method in enumerate(methods):
            told = _teller(judge, method, len(rows))
            answers = _answer(
                judge, stack, [row.prompt for row in encoded], weights[i], n_new, told
            )
            results[method] = MethodResult(tuple(answers), tuple(map(float, losses[i])))
        if prompting:
            results["prompting"] = MethodResult(tuple(_answer_shots(judge, n_new)), None)
    return results


def _answer_shots(judge: Judge, n_new: int) -> list[str]:
    """Answer with the fit rows in the prompt.

    Held-out rows all have the same shots before them, which are read once for many rows; fit rows
    each lack one, so they go in batches of their own.
    """
    prompts = _few_shot_prompts(judge)
    n_fit, done = len(judge.split.fit), 0
    answers: list[str] = []
    with AdapterStack(judge.base, []) as stack:
        for part in (prompts[:n_fit], prompts[n_fit:]):
            told = _teller(judge, "prompting", len(prompts), before=done)
            answers += _answer(judge, stack, part, np.zeros(1), n_new, told)
            done += len(part)
    ends = not any(SHOT_BREAK in row.output for row in judge.split.fit)
    return [text.partition(SHOT_BREAK)[0].strip() if ends else text for text in answers]


def _answer_length(judge: Judge, longest: int, rows: Sequence[Example]) -> int:
    slack = ANSWER_SLACK if choose_metric(rows) == "exact_match" else longest // 2
    return min(judge.max_new_tokens, longest + slack)


def _teller(judge: Judge, method: Method, total: int, before: int = 0) -> Callable[[int], None]:
    """Return what hears how many rows are done; it also hears a stop."""

    def on_rows(done: int) -> None:
        if judge.should_stop():
            raise Stopped("Stopped by request.")
        judge.on_progress(AnswersScored(method, before + done, total))

    return on_rows


def _answer(
    judge: Judge,
    stack: AdapterStack,
    prompts: Sequence[Sequence[int]],
    weights: np.ndarray[tuple[int], np.dtype[np.float64]],
    n_new: int,
    on_rows: Callable[[int], None],
) -> list[str]:
    return answer_rows(
        judge.base,
        stack,
        prompts,
        np.tile(weights, (len(prompts), 1)),
        max_new_tokens=n_new,
        on_rows=on_rows,
    )


def _few_shot_prompts(judge: Judge) -> list[list[int]]:
    """Put the fit rows in front of each row; a fit row is not shown its own answer.

    The oldest rows drop out where the model cannot read them all.
    """
    room = max(1, judge.base.max_length - judge.max_new_tokens)
    prompts = []
    for row in (*judge.split.fit, *judge.split.held_out):
        shots = [shot for shot in judge.split.fit if shot is not row]
        while True:
            text = SHOT_BREAK.join([*(f"{shot.input} {shot.output}" for shot in shots), row.input])
            prompt = encode_prompt(judge.base, text, judge.prompt_format)
            if len(prompt) <= room or not shots:
                break
            shots = shots[1:]
        prompts.append(list(prompt[-room:]))
    return prompts
