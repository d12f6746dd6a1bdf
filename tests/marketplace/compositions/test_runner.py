"""What the runner prepares for composer; whole runs are walked in the journeys and faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from composer.examples import Example as Row
from marketplace.compositions.models import CompositionJob

pytestmark = pytest.mark.django_db
FIT = (Row("word", "answer"),)


@pytest.fixture
def laid_out(tmp_path: Path):
    """Lay out a job's pool and return its members' names, and of which the files are there."""
    from marketplace.compositions.runner import _lay_out_pool  # loads torch

    def lay_out(job: CompositionJob) -> tuple[list[str], list[str]]:
        members = _lay_out_pool(job, FIT, tmp_path)
        there = [m.name for m in members if (m.folder / "adapter_model.safetensors").exists()]
        assert len(list(tmp_path.glob("pool/*"))) == len(there)
        return [member.name for member in members], there

    return lay_out


def test_it_works(job, laid_out):
    names = [f"carol/adapter-{letter}" for letter in "abc"]

    assert laid_out(job) == (names, names)


@pytest.mark.parametrize("selection", ["similar", "random"])
def test_files_of_what_the_selection_drops_are_not_laid_out(job, laid_out, selection):
    job.selection, job.n_candidates = selection, 2
    names, there = laid_out(job)

    assert len(names) == 2
    assert there == names
    assert job.ingredients.count() == 3  # the whole pool stays pinned


def test_screening_reads_the_files_of_the_most_similar_only(job, laid_out, monkeypatch):
    monkeypatch.setattr("composer.selection.SCREENED_POOL", 1)
    job.n_candidates = 1

    assert len(laid_out(job)[1]) == 1


def test_weights_set_by_hand_need_only_their_own_files(job, laid_out):
    job.hand_weights = {"carol/adapter-a": 0.0, "carol/adapter-c": 1.0}
    names, there = laid_out(job)

    assert len(names) == 3
    assert there == ["carol/adapter-c"]
