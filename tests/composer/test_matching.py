from __future__ import annotations

import pytest

from composer.matching import is_match, rouge_l


def test_it_works() -> None:
    assert is_match(" Bicycle. ", "bicycle")
    assert not is_match("bicycles", "bicycle")
    assert rouge_l("the cat sat", "the cat sat") == 1.0


def test_case_counts_where_it_is_the_point() -> None:
    assert is_match("LAMP", "lamp")
    assert not is_match("LAMP", "lamp", exact_case=True)
    assert is_match("LAMP.", "LAMP", exact_case=True)


def test_only_one_final_full_stop_is_forgiven() -> None:
    assert not is_match("yes..", "yes")
    assert not is_match("3.5", "35")


@pytest.mark.parametrize(
    ("answer", "expected", "score"),
    [
        ("a b c d", "a c", 2 * 2 / 6),
        ("c a", "a c", 2 * 1 / 4),
        ("x", "y", 0.0),
        ("", "y", 0.0),
        ("", "", 1.0),
        ("The, cat!", "the cat", 1.0),
    ],
)
def test_rouge_is_the_f_measure_of_common_order(answer: str, expected: str, score: float) -> None:
    assert rouge_l(answer, expected) == pytest.approx(score)
