from __future__ import annotations

from typing import Any

import pytest

from marketplace.compositions.answers import find_shared, read_answers

INSTRUCTION = "Find the vehicle among these words.\n\nInput: "


def make_report(*inputs: str, n_held_out: int = 2) -> dict[str, Any]:
    sides = ["fit"] * (len(inputs) - n_held_out) + ["held_out"] * n_held_out
    return {
        "rows": [{"method": "base"}, {"method": "composed"}],
        "n_held_out": n_held_out,
        "answers": [
            {
                "input": text,
                "expected": "car",
                "split": side,
                "answers": {"base": "cat", "composed": "car"},
                "correct": {"base": False, "composed": place > 0},
            }
            for place, (text, side) in enumerate(zip(inputs, sides, strict=True))
        ],
    }


def test_it_works():
    inputs = [f"{INSTRUCTION}{words}\nOutput:" for words in ("cat, car", "bus, bee", "dog, van")]
    table = read_answers(make_report(*inputs), show_all=False)

    assert (table.before, table.after) == (INSTRUCTION, "\nOutput:")
    assert [(row.number, row.input) for row in table.rows] == [(2, "bus, bee"), (3, "dog, van")]
    assert table.rows[0].cells == (("cat", False), ("car", True))


@pytest.mark.parametrize(
    ("inputs", "shared"),
    [
        (["Which of these is larger? a cat", "Which of these is larger? a cow"],
         ("Which of these is larger? ", "")),
        # Shared words that end no sentence belong to the rows.
        (["The train leaves from platform one", "The train leaves from platform two"], ("", "")),
        (["Sort: 1 2", "Sort: 2 1"], ("", "")),  # too short to repay a line of its own
        (["cat", "dog"], ("", "")),
        ([f"{INSTRUCTION}cat"], ("", "")),
        ([f"{INSTRUCTION}cat"] * 2, ("", "")),
        ([INSTRUCTION, f"{INSTRUCTION}cat"], ("", "")),  # a row would be left empty
        ([], ("", "")),
    ],
)  # fmt: skip
def test_only_whole_sentences_are_told_once(inputs, shared):
    assert find_shared(inputs) == shared


def test_rows_on_which_all_agree_are_shown_on_request():
    report = make_report("cat", "dog", n_held_out=0)

    assert [row.input for row in read_answers(report, show_all=False).rows] == ["dog"]
    assert [row.input for row in read_answers(report, show_all=True).rows] == ["cat", "dog"]


def test_a_report_without_answers_is_an_empty_table():
    assert read_answers({}, show_all=True).rows == ()
