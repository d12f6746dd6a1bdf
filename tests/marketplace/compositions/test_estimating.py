"""What a job will cost, told before it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from marketplace.compositions.estimating import (
    QUICK_LORA_EVALUATIONS,
    Plan,
    estimate,
)
from marketplace.compositions.models import CompositionJob
from marketplace.compositions.services import check_composition
from tests.factories import make_base_model
from tests.stack import PROJECT

pytestmark = pytest.mark.django_db
PLAN = Plan(pool=3, budget=40, rows=8)
MIB = 1024**2


def finish(job: CompositionJob, seconds: float, **changes) -> None:
    now = timezone.now()
    CompositionJob.objects.filter(pk=job.pk).update(
        state="succeeded",
        started_at=now - timedelta(seconds=seconds),
        finished_at=now,
        evaluations_spent=40,
        **changes,
    )


def test_it_works(job):
    before = estimate(job.base_model, PLAN)
    assert (before.screening, before.evaluations, before.answers, before.methods) == (3, 40, 8, 4)
    assert before.queued == 1
    assert before.seconds is None
    finish(job, 60)
    after = estimate(job.base_model, PLAN)
    assert after.queued == 0
    assert after.seconds == pytest.approx(60)
    assert after.memory == before.memory


def test_jobs_that_trained_do_not_make_others_look_slow(job):
    finish(job, 60, quick_lora=True)
    plain = estimate(job.base_model, PLAN)
    trained = estimate(job.base_model, replace(PLAN, quick_lora=True))
    assert trained.seconds == pytest.approx(60)
    assert trained.methods == 5
    assert plain.lora_seconds == pytest.approx(trained.seconds - plain.seconds)
    assert plain.lora_evaluations == QUICK_LORA_EVALUATIONS


def test_a_budget_of_gradients_takes_longer(job):
    finish(job, 60)
    plain = estimate(job.base_model, PLAN)
    learned = estimate(job.base_model, replace(PLAN, gradient=True))
    assert plain.seconds == pytest.approx(60)
    assert learned.seconds > plain.seconds


def test_memory_grows_with_what_is_held():
    base = make_base_model()
    plain = replace(PLAN, parameters=10**6, rank=16, fit_tokens=10_000)
    small = estimate(base, plain).memory
    assert small > 500 * MIB + 2 * base.parameter_count
    for changes in (
        {"pool": 8},
        {"pool": 8, "parameters": 10**7},
        {"dtype": "float32"},
        {"quick_lora": True},
        {"gradient": True},
        {"paths": tuple(base.module_table)},
    ):
        assert estimate(base, replace(plain, **changes)).memory > small


def test_what_is_packed_takes_more_to_load():
    folder = make_base_model()
    packed = make_base_model("packed/base", source_kind="gguf_package")
    assert estimate(packed, PLAN).memory > estimate(folder, PLAN).memory


COMPOSE = """
import json
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from composer.base_model import BaseModelSource
from composer.composing import ComposeRequest, PoolMember, compose
from marketplace.compositions.memory import forget_peak, read_peak
from tests.composer.tiny import ROWS, load_tiny, make_adapter, tokenizer_of

torch.set_num_threads(1)
folder = Path(sys.argv[1])
config = LlamaConfig(vocab_size=258, hidden_size=1024, intermediate_size=2816, num_hidden_layers=8,
                     num_attention_heads=16, max_position_embeddings=512, eos_token_id=256,
                     pad_token_id=256)
with torch.device("meta"):
    model = LlamaForCausalLM(config)
n_parameters = model.num_parameters()
model = model.to(torch.float32).to_empty(device="cpu")
for parameter in model.parameters():
    torch.nn.init.normal_(parameter, std=0.02)
model.save_pretrained(folder / "base")
tokenizer_of(ends_texts=False).save_pretrained(folder / "base")
del model
base = load_tiny(folder / "base")
paths = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(8) for name in "qv"]
for i in range(3):
    make_adapter(base, seed=i, rank=16, modules=tuple(paths), size=0.02).save(folder / str(i))
table = {path: list(sizes) for path, sizes in base.module_table.items()}
del base
forget_peak()
compose(
    ComposeRequest(
        base=BaseModelSource("folder", str(folder / "base"), name="tiny/base"),
        pool=tuple(PoolMember(f"own/{i}", folder / str(i)) for i in range(3)),
        examples=ROWS,
        output_folder=folder / "out",
        dtype="float32",
        device="cpu",
        budget=4,
        max_new_tokens=2,
    )
)
print(json.dumps([n_parameters, table, paths, read_peak()]))
"""


def test_memory_is_near_the_peak_of_a_real_run(tmp_path):
    """Within a factor of one and a half; the site's own libraries are not loaded there."""
    done = subprocess.run(
        [sys.executable, "-c", COMPOSE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
    )
    n_parameters, table, paths, peak = json.loads(done.stdout.splitlines()[-1])
    base = make_base_model("real/base", parameter_count=n_parameters, module_table=table)
    plan = Plan(
        pool=3,
        budget=4,
        rows=8,
        dtype="float32",
        parameters=sum(16 * sum(table[path]) for path in paths),
        rank=16,
        paths=tuple(paths),
        fit_tokens=200,
    )
    assert 1 / 1.5 < estimate(base, plan).memory / peak < 1.5


def test_without_a_size_there_is_no_figure():
    base = make_base_model("unknown/base", parameter_count=None)
    assert estimate(base, PLAN).memory is None
    assert estimate(None, PLAN).memory is None


def test_a_plan_is_read_off_a_checked_request(make_request):
    options = {"optimizer": "gradient", "quick_lora": True, "n_candidates": 2, "dtype": "float32"}
    checked = check_composition(make_request(options=options))
    plan = Plan.of(checked.options, checked.pool, checked.split)
    assert (plan.pool, plan.rows, plan.budget, plan.n_candidates) == (3, 8, 52, 2)
    assert plan.gradient
    assert plan.quick_lora
    assert plan.dtype == "float32"
    assert plan.rank == 4
    assert plan.parameters > 0
    assert set(plan.paths) <= set(checked.base_model.module_table)
    assert plan.paths
    assert plan.fit_tokens > 0
    by_hand = Plan.of(checked.options, checked.pool, checked.split, is_searched=False)
    assert (by_hand.budget, by_hand.gradient) == (1, False)


def test_a_request_without_pool_and_rows_is_a_plan_of_nothing():
    plan = Plan.of({}, (), None)
    assert (plan.pool, plan.rows, plan.parameters, plan.paths) == (0, 0, 0, ())
