from __future__ import annotations

from dataclasses import replace

import pytest

from composer.base_model import LoadedBase
from composer.errors import Stopped
from composer.examples import Example, split_examples
from composer.judging import Judge, judge_methods
from composer.progress import AnswersScored, Progress, ignore, never
from composer.report import choose_metric
from tests.composer.tiny import ROWS, make_adapter


@pytest.fixture
def judge(causal: LoadedBase) -> Judge:
    split = split_examples(ROWS, n_fit=2)
    return Judge(causal, split, "plain", 8, ignore, never)


def test_it_works(judge: Judge) -> None:
    adapter = make_adapter(judge.base)
    twin = replace(adapter, name="twin")
    results = judge_methods(judge, {"base": None, "best_single": adapter, "composed": twin})
    assert set(results) == {"base", "best_single", "composed"}
    assert results["best_single"].answers == results["composed"].answers
    # Rows of one batch round differently in the last digits.
    assert results["best_single"].losses == pytest.approx(results["composed"].losses, abs=1e-4)
    assert results["base"].losses != results["composed"].losses
    assert len(results["base"].answers) == len(ROWS)


def test_the_base_alone_can_be_judged(judge: Judge) -> None:
    assert list(judge_methods(judge, {"base": None})) == ["base"]


def test_prompting_shows_the_fit_rows_but_never_their_own_answer(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    from composer import judging

    seen: list[str] = []
    real = judging.encode_prompt

    def listen(base, text, prompt_format):
        seen.append(text)
        return real(base, text, prompt_format)

    monkeypatch.setattr(judging, "encode_prompt", listen)
    wide = replace(judge, max_new_tokens=1)
    result = judge_methods(wide, {"base": None}, prompting=True)["prompting"]
    assert result.losses is None
    assert len(result.answers) == len(ROWS)
    first = f"{ROWS[0].input} {ROWS[0].output}"
    second = f"{ROWS[1].input} {ROWS[1].output}"
    assert seen[0] == f"{second}\n\n{ROWS[0].input}"
    assert f"{first}\n\n{second}\n\n{ROWS[5].input}" in seen


def test_rows_that_do_not_fit_leave_the_prompt(judge: Judge) -> None:
    long = tuple(Example(row.input.replace("it", "it" * 30), row.output) for row in ROWS)
    narrow = replace(judge, split=split_examples(long, n_fit=5))
    results = judge_methods(narrow, {"base": None}, prompting=True)
    assert len(results["prompting"].answers) == len(ROWS)


def test_a_prompted_answer_ends_at_the_next_shot(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    from composer import judging

    written = "red\n\nIs it blue? Output: blue"
    monkeypatch.setattr(
        judging, "answer_rows", lambda base, stack, prompts, *_, **__: [written] * len(prompts)
    )
    results = judge_methods(judge, {"base": None}, prompting=True)
    assert set(results["prompting"].answers) == {"red"}
    assert set(results["base"].answers) == {written}
    # Where answers have blank lines themselves, nothing is cut.
    verses = tuple(Example(row.input, f"{row.output}\n\nand more") for row in ROWS)
    poem = replace(judge, split=split_examples(verses, n_fit=2))
    assert set(judge_methods(poem, {"base": None}, prompting=True)["prompting"].answers) == {
        written
    }


def test_progress_is_told_for_every_method(judge: Judge) -> None:
    heard: list[Progress] = []
    judge_methods(replace(judge, on_progress=heard.append), {"base": None}, prompting=True)
    done = {event.method: event.done for event in heard if isinstance(event, AnswersScored)}
    assert done == {"base": len(ROWS), "prompting": len(ROWS)}


def test_a_stop_is_heard(judge: Judge) -> None:
    with pytest.raises(Stopped):
        judge_methods(replace(judge, should_stop=lambda: True), {"base": None})
    calls = iter([False] * 2)
    with pytest.raises(Stopped):
        judge_methods(replace(judge, should_stop=lambda: next(calls, True)), {"base": None})


def test_the_metric_follows_the_length_of_answers() -> None:
    short = [Example("x", "two words")] * 3
    long = [Example("x", "a whole sentence of more than six words")] * 3
    assert choose_metric(short) == "exact_match"
    assert choose_metric(long) == "rougeL"
    assert choose_metric([*short, long[0]]) == "exact_match"
