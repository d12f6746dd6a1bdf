# ruff: noqa: E501 - whole messages stay on one line
from __future__ import annotations

import pytest

from composer.errors import InvalidExamples
from composer.examples import Example, parse_examples, split_examples

ROWS = (Example("a", "b"), Example("c, d", "e"))


def problems_of(text: str, kind="auto") -> list[str]:
    with pytest.raises(InvalidExamples) as caught:
        parse_examples(text, kind)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "text",
    [
        '{"input": "a", "output": "b"}\n{"input": "c, d", "output": "e", "id": 7}\n',
        'input,output\na,b\n"c, d",e\n',
        'a,b\r\n"c, d",e\r\n',
        'Output,id,Input\nb,1,a\ne,2,"c, d"\n',
        "input;output\na;b\nc, d;e\n",
        "input\toutput\na\tb\nc, d\te\n",
        "a => b\n\n c, d=>e\n",
        "\ufeffa => b\nc, d => e",
    ],
)
def test_it_works(text: str):
    assert parse_examples(text) == ROWS


def test_a_quoted_cell_may_hold_line_breaks_and_later_lines_keep_their_numbers():
    assert parse_examples('"a\nb",c\n') == (Example("a\nb", "c"),)
    assert problems_of('"a\nb",c\nonly\n', "csv") == [
        (
            "examples, line 3: has 1 column instead of 2. Write two columns, input and output; put a "
            "cell that contains commas into quotes."
        )
    ]


def test_unusual_line_separators_belong_to_the_text():
    assert parse_examples("a\u2028b => c\x0bd") == (Example("a\u2028b", "c\x0bd"),)


_JSONL_FIX = 'Write one object a line: {"input": "...", "output": "..."}.'


def test_all_problems_are_told_with_their_lines():
    text = "\n".join(
        [
            '{"input": "a"}',
            "",
            '{"question": "a", "answer": "b"}',
            '{"input": 1, "output": "b"}',
            '{"input": "a", "output": null}',
            "[1]",
            '{"input": "a", "input": "b", "output": "c"}',
            "{}",
        ]
    )

    assert problems_of(text) == [
        f'examples, line 1: lacks "output" (it has "input"). {_JSONL_FIX}',
        'examples, line 3: lacks "input" and "output" (it has "question", "answer"). ' + _JSONL_FIX,
        'examples, line 4: has a number as "input". Put the text into double quotes.',
        'examples, line 5: has a null as "output". Put the text into double quotes.',
        f"examples, line 6: is a list, not an object. {_JSONL_FIX}",
        f'examples, line 7: is not valid JSON: the key "input" appears twice. {_JSONL_FIX}',
        f'examples, line 8: lacks "input" and "output" (it has no keys). {_JSONL_FIX}',
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a =>  ", "examples, line 1: has an empty output. Fill it in or delete the line."),
        ("=> a", "examples, line 1: has an empty input. Fill it in or delete the line."),
        ("a => b\0", "examples, line 1: has a NUL character in its output. Delete it."),
        (
            '{"input": "\\ud800", "output": "b"}',
            (
                "examples, line 1: has half a surrogate pair in its input, which is no character. "
                "Save the file as UTF-8."
            ),
        ),
        (
            "a => b => c",
            (
                'examples, line 1: has 2 times "=>", so input and output are unclear. Use JSON Lines '
                "or CSV for texts that contain it."
            ),
        ),
        (
            f"{'ä' * 4096} => b",
            (
                "examples, line 1: has 8193 bytes; the limit is 8192 for input and output. Shorten "
                "the input."
            ),
        ),
        ("", "examples: There are no examples. Give at least one input and output."),
        (
            "input,output\n",
            "examples: There are no examples. Give at least one input and output.",
        ),
    ],
)
def test_it_refuses(text: str, problem: str):
    assert problems_of(text) == [problem]


def test_pairs_need_an_arrow():
    assert problems_of("a => b\nc", "pairs") == [
        'examples, line 2: has no "=>". Write: input => output.'
    ]


def test_broken_csv_is_told_once():
    (problem,) = problems_of('a,b\n"c"d,e\n', "csv")

    assert problem.startswith("examples, line 2: is not valid CSV (")


def test_exactly_500_rows_are_allowed():
    assert len(parse_examples("a => b\n" * 500)) == 500
    assert problems_of("a => b\n" * 501) == [
        (
            "examples: There are more than 500 examples, which is the limit. Keep the most typical "
            "ones."
        )
    ]


def test_many_problems_are_shortened():
    problems = problems_of("a\n" * 30, "pairs")

    assert len(problems) == 21
    assert problems[-1] == "examples: 10 more lines have problems."


def rows(count: int) -> tuple[Example, ...]:
    return tuple(Example(f"in {number}", f"out {number}") for number in range(count))


@pytest.mark.parametrize(
    ("count", "n_fit", "fit"),
    [(1, None, 1), (5, 3, 5), (6, None, 5), (12, None, 8), (100, None, 16), (10, 4, 4), (8, 99, 8)],
)
def test_the_first_rows_are_fit_rows(count: int, n_fit: int | None, fit: int):
    split = split_examples(rows(count), n_fit=n_fit)

    assert split.fit_indices == tuple(range(fit))
    assert split.fit + split.held_out == rows(count)


def test_a_seed_draws_rows_and_keeps_their_order():
    split = split_examples(rows(20), n_fit=5, seed=1)

    assert split == split_examples(rows(20), n_fit=5, seed=1)
    assert split.fit_indices != split_examples(rows(20), n_fit=5, seed=2).fit_indices
    assert sorted(split.fit_indices + split.held_out_indices) == list(range(20))
    assert list(split.fit_indices) == sorted(split.fit_indices)
    assert split.fit == tuple(rows(20)[index] for index in split.fit_indices)


def test_a_search_needs_a_fit_row():
    with pytest.raises(ValueError, match="n_fit must be at least 1, not 0"):
        split_examples(rows(10), n_fit=0)
