"""What the runner prepares for composer; whole runs are walked in the journeys and faults."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from composer.examples import Example as Row
from marketplace.catalogue.models import BaseModel
from marketplace.compositions.models import CompositionJob
from marketplace.compositions.services import start_composition

pytestmark = pytest.mark.django_db
FIT = (Row("word", "answer"),)


@pytest.fixture
def causal_folder(tmp_path: Path) -> Path:
    """A base of the factories' shape that can be loaded."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.composer.tiny import save_causal

    torch.set_num_threads(1)
    folder = save_causal(tmp_path / "base")
    config = LlamaConfig.from_pretrained(folder, num_key_value_heads=4)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


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


def test_a_job_asks_composer_for_the_gradients_it_was_started_with(make_request, sent, tmp_path):
    from marketplace.compositions.runner import _make_request  # loads torch

    options = {"optimizer": "gradient", "weight_blocks": 2, "quick_lora": True}
    asked = _make_request(start_composition(make_request(options=options)), tmp_path)
    assert (asked.optimizer, asked.weight_blocks, asked.quick_lora) == ("gradient", 2, True)
    plain = _make_request(start_composition(make_request()), tmp_path)
    assert (plain.optimizer, plain.weight_blocks, plain.quick_lora) == ("duel", None, False)


def test_a_run_with_gradients_ends_with_weights_and_the_peak(make_request, sent, causal_folder):
    from marketplace.compositions.runner import run  # loads torch

    options = {"optimizer": "gradient", "weight_blocks": 2, "quick_lora": True, "budget": 8}
    job = start_composition(make_request(options=options))
    BaseModel.objects.filter(pk=job.base_model_id).update(location=str(causal_folder))
    run(job.pk, worker="here")
    job.refresh_from_db()
    assert (job.state, job.error) == ("succeeded", "")
    assert job.recipe["weight_blocks"] == 2
    assert job.recipe["quick_lora"]["steps"] == 25
    assert job.optimizer_resolved == "Adam, with gradients"
    assert sys.platform != "linux" or job.peak_memory > 100 * 1024**2
    assert all(item.weight is not None for item in job.ingredients.all())
    told = [len(row.weights) for row in job.evaluations.all()]
    assert told == [3] * (len(told) - 1) + [4]
    assert "quick_lora" in {row["method"] for row in job.report["rows"]}
