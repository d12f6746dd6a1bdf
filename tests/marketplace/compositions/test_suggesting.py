"""What the publish dialog proposes."""

from __future__ import annotations

import pytest

from marketplace.accounts.names import validate_adapter_name
from marketplace.compositions.services.suggesting import (
    MAX_SUMMARY,
    suggest_name,
    suggest_summary,
)
from tests.factories import make_adapter
from tests.marketplace.compositions.finished import finish

pytestmark = pytest.mark.django_db


def test_it_works(job):
    finish(job)

    assert suggest_summary(job, parents=2) == (
        "Composed of 2 adapters of base for “A task”: 3 of 3 held-out rows right, the base alone 0."
    )


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("pick_vehicle", "pick_vehicle"),
        ("Find the vehicle among these words.", "find-the-vehicle-among-these-words"),
        ("Übersetze die Sätze", "ubersetze-die-satze"),
        ("車を探す", "composition-1"),
        ("", "composition-1"),
        ("word " * 24, "word-word-word-word-word-word-word-word-word"),
        ("x" * 120, "x" * 48),
    ],
)
def test_a_title_becomes_a_name(job, title, name):
    job.title = title

    assert suggest_name(job) == name
    validate_adapter_name(name)


def test_a_name_that_is_given_is_counted_on(job, alice):
    make_adapter(alice, "A-Task")
    make_adapter(alice, "a-task-2")

    assert suggest_name(job) == "a-task-3"


def test_a_title_like_a_name_is_read_as_words(job):
    job.title = "pick_vehicle"

    assert suggest_summary(job, parents=1) == "Composed of 1 adapter of base for “pick vehicle”."


def test_a_long_instruction_is_cut_after_a_word(job):
    finish(job)
    job.title = "Find what can carry people from one place to another among these many words. " * 2
    found = suggest_summary(job, parents=2)

    assert len(found) <= MAX_SUMMARY
    assert "…”: 3 of 3 held-out rows right" in found


def test_a_base_with_a_long_name_leaves_the_task_out(job):
    finish(job)
    job.base_model.name = f"tiny/{'b' * 120}"

    assert "for" not in suggest_summary(job, parents=2)


def test_rouge_is_named(job):
    finish(job)
    for row in job.report["rows"]:
        row["held_out"] |= {"correct": None, "score": 0.5}

    found = suggest_summary(job, parents=2)
    assert found.endswith(": ROUGE-L 0.50 on 3 held-out rows, the base alone 0.50.")


def test_without_held_out_rows_no_score_is_claimed(job):
    finish(job)
    for row in job.report["rows"]:
        row["held_out"] = None

    assert suggest_summary(job, parents=2) == "Composed of 2 adapters of base for “A task”."
