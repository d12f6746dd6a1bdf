from __future__ import annotations

import pickle

import pytest

from composer import errors
from composer.errors import IncompatibleAdapters, InvalidAdapter, Problem

PROBLEM = Problem("adapter_config.json", "r", "The rank is 0.", "Train again.")


def test_it_works():
    error = InvalidAdapter([PROBLEM, Problem("", "", "More.")])

    assert error.problems == (PROBLEM, Problem("", "", "More."))
    assert str(error) == "adapter_config.json, r: The rank is 0. Train again.\nMore."


def test_one_problem_needs_no_list():
    assert InvalidAdapter(PROBLEM).problems == (PROBLEM,)


def test_a_problem_survives_json():
    assert Problem.from_dict(PROBLEM.to_dict()) == PROBLEM


def test_errors_cross_process_borders():
    error = pickle.loads(pickle.dumps(InvalidAdapter(PROBLEM)))
    reasons = pickle.loads(pickle.dumps(IncompatibleAdapters("Ranks differ.")))

    assert error.problems == (PROBLEM,)
    assert reasons.reasons == ("Ranks differ.",)
    assert str(reasons) == "Ranks differ."


@pytest.mark.parametrize(
    "name", [name for name in vars(errors) if isinstance(vars(errors)[name], type)]
)
def test_the_docstring_draws_every_error(name: str):
    error = vars(errors)[name]
    if issubclass(error, Exception):
        assert issubclass(error, errors.ComposerError)
        assert name in (errors.__doc__ or "")
