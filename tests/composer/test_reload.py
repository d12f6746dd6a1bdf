"""What `compose` writes, loaded by peft alone, is what was scored: for every merge method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from composer.adapter import LoraAdapter
from composer.base_model import BaseModelSource, LoadedBase
from composer.composing import ComposeRequest, Composition, PoolMember, compose
from composer.merging import merge_adapters
from composer.scoring import encode_examples
from composer.stacking import AdapterStack
from tests.composer.tiny import BASE_NAME, ROWS

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)

TOLERANCE = 1e-4

# Each family holds what peft lets an author choose; factor needs equal ones.
CAUSAL_MIXED: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "rooted": {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj"], "use_rslora": True},
    "patterned": {
        "r": 2,
        "lora_alpha": 6,
        "target_modules": ["v_proj", "o_proj", "down_proj"],
        "rank_pattern": {"o_proj": 5, "model.layers.1.self_attn.v_proj": 1},
        "alpha_pattern": {"down_proj": 1, "model.layers.0.self_attn.v_proj": 11},
    },
    "rooted_patterned": {
        "r": 6,
        "lora_alpha": 3,
        "target_modules": ["gate_proj", "q_proj", "lm_head"],
        "use_rslora": True,
        "rank_pattern": {"gate_proj": 2},
        "alpha_pattern": {"q_proj": 9},
    },
    "one_layer_in_half_precision": {
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["up_proj"],
        "layers_to_transform": [1],
    },
}
SEQ2SEQ_MIXED: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": ["q", "v"]},
    "rooted": {"r": 3, "lora_alpha": 5, "target_modules": ["k", "wo"], "use_rslora": True},
    "patterned": {
        "r": 2,
        "lora_alpha": 6,
        "target_modules": ["q", "wi", "o"],
        "rank_pattern": {"wi": 5, "encoder.block.1.layer.0.SelfAttention.q": 1},
        "alpha_pattern": {"o": 1, "decoder.block.0.layer.1.EncDecAttention.q": 11},
    },
}


def equal(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: dict(settings) for name in ("first", "second", "third")}


CAUSAL_EQUAL = equal(
    {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "up_proj"], "use_rslora": True}
)
CAUSAL_EQUAL_PATTERNED = equal(
    {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"q_proj": 3},
    }
)
SEQ2SEQ_EQUAL = equal({"r": 4, "lora_alpha": 6, "target_modules": ["q", "v"]})


@dataclass(frozen=True)
class Case:
    kind: Literal["causal", "seq2seq"]
    method: Literal["factor", "concat", "svd"]
    pool: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def truncated(self) -> bool:
        return self.method == "svd" and self.options["svd_rank"] < 10


FULL = {"svd_rank": 40}
CASES = {
    "causal concat": Case("causal", "concat", CAUSAL_MIXED),
    "causal svd": Case("causal", "svd", CAUSAL_MIXED, FULL),
    "causal svd cut": Case("causal", "svd", CAUSAL_MIXED, {"svd_rank": 3}),
    "causal factor": Case("causal", "factor", CAUSAL_EQUAL),
    "causal factor, patterns": Case("causal", "factor", CAUSAL_EQUAL_PATTERNED),
    "seq2seq concat": Case("seq2seq", "concat", SEQ2SEQ_MIXED),
    "seq2seq svd": Case("seq2seq", "svd", SEQ2SEQ_MIXED, FULL),
    "seq2seq svd cut": Case("seq2seq", "svd", SEQ2SEQ_MIXED, {"svd_rank": 2}),
    "seq2seq factor": Case("seq2seq", "factor", SEQ2SEQ_EQUAL),
}


@dataclass(frozen=True)
class Run:
    """One composition, with what is needed to look at it twice."""

    case: Case
    base: LoadedBase
    base_folder: Path
    candidates: list[LoraAdapter]
    result: Composition

    def reloaded(self) -> PeftModel:
        loader = AutoModelForSeq2SeqLM if self.base.is_seq2seq else AutoModelForCausalLM
        model = loader.from_pretrained(self.base_folder, dtype=torch.float32)
        return PeftModel.from_pretrained(model, self.result.folder).eval()


@pytest.fixture(scope="module")
def compose_once(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Run]:
    made: dict[str, Run] = {}

    def once(name: str) -> Run:
        if name not in made:
            case = CASES[name]
            base = request.getfixturevalue(case.kind)
            folder = request.getfixturevalue(f"{case.kind}_folder")
            made[name] = run_case(case, base, folder, tmp_path_factory.mktemp("reload"))
        return made[name]

    return once


def run_case(case: Case, base: LoadedBase, base_folder: Path, scratch: Path) -> Run:
    """Compose with weights that are all different from 0 and from 1."""
    weights = dict(zip(case.pool, (0.7, -0.4, 1.3, 0.55, -0.9), strict=False))
    return search_case(case, base, base_folder, scratch, hand_weights=weights)


def search_case(
    case: Case, base: LoadedBase, base_folder: Path, scratch: Path, **changes: Any
) -> Run:
    pool = [
        PoolMember(name, save_with_peft(base_folder, base, scratch / name, settings, seed))
        for seed, (name, settings) in enumerate(case.pool.items())
    ]
    request = ComposeRequest(
        base=BaseModelSource("folder", str(base_folder), name=BASE_NAME),
        pool=tuple(pool),
        examples=ROWS,
        output_folder=scratch / "out",
        merge_method=case.method,
        budget=20,
        dtype="float32",
        device="cpu",
        max_new_tokens=4,
        **case.options,
    )
    result = compose(replace(request, **changes))
    by_name = {m.name: LoraAdapter.load(m.folder, base.module_table, name=m.name) for m in pool}
    candidates = [by_name[name] for name in result.names if name in by_name]
    return Run(case, base, base_folder, candidates, result)


def save_with_peft(
    base_folder: Path, base: LoadedBase, folder: Path, settings: Mapping[str, Any], seed: int
) -> Path:
    """Let peft write the adapter, with random numbers in both factors."""
    loader = AutoModelForSeq2SeqLM if base.is_seq2seq else AutoModelForCausalLM
    model = loader.from_pretrained(base_folder, dtype=torch.float32)
    task = "SEQ_2_SEQ_LM" if base.is_seq2seq else "CAUSAL_LM"
    wrapped = get_peft_model(model, LoraConfig(task_type=task, **settings))
    random = torch.Generator().manual_seed(seed)
    for key, value in wrapped.named_parameters():
        if "lora_" in key:
            value.data = torch.randn(value.shape, generator=random) * 0.2
            if "half" in folder.name:
                value.data = value.data.half()
    wrapped.peft_config["default"].base_model_name_or_path = BASE_NAME
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return folder


def logits_of(model: Any, base: LoadedBase) -> list[torch.Tensor]:
    """Return the logits of every row, one row a forward pass, without any of our batching."""
    found = []
    for item in encode_examples(base, ROWS):
        with torch.inference_mode():
            if base.is_seq2seq:
                labels = torch.tensor([item.answer])
                output = model(input_ids=torch.tensor([item.prompt]), labels=labels)
            else:
                output = model(input_ids=torch.tensor([[*item.prompt, *item.answer]]))
        found.append(output.logits[0])
    return found


def losses_of(model: Any, base: LoadedBase) -> list[float]:
    """Return the loss of every row as peft's user would compute it."""
    found = []
    for item in encode_examples(base, ROWS):
        with torch.inference_mode():
            if base.is_seq2seq:
                labels = torch.tensor([item.answer])
                output = model(input_ids=torch.tensor([item.prompt]), labels=labels)
            else:
                ids = torch.tensor([[*item.prompt, *item.answer]])
                labels = torch.tensor([[*[-100] * len(item.prompt), *item.answer]])
                output = model(input_ids=ids, labels=labels)
        found.append(float(output.loss))
    return found


def stacked_logits(
    base: LoadedBase, adapters: list[LoraAdapter], weights: tuple[float, ...], space: Any
) -> list[torch.Tensor]:
    with (
        AdapterStack(base, adapters, space=space) as stack,
        stack.applied(torch.tensor([weights])),
    ):
        return logits_of(base.model, base)


def furthest(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


def test_it_works(compose_once: Callable[[str], Run]) -> None:
    run = compose_once("causal concat")
    assert sorted(run.result.names) == sorted(CAUSAL_MIXED)
    changed = furthest(logits_of(run.reloaded(), run.base), logits_of(run.base.model, run.base))
    assert changed > 0.1


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.truncated])
def test_peft_gives_the_logits_that_the_search_scored(
    name: str, compose_once: Callable[[str], Run]
) -> None:
    run = compose_once(name)
    space = "factor" if run.case.method == "factor" else "delta"
    searched = stacked_logits(run.base, run.candidates, run.result.weights, space)
    assert furthest(logits_of(run.reloaded(), run.base), searched) < TOLERANCE
    assert run.result.recipe["fit_loss"] == pytest.approx(
        float(np.mean(losses_of(run.reloaded(), run.base)[:5])), abs=TOLERANCE
    )


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.truncated])
def test_a_cut_rank_loses_what_is_reported(name: str, compose_once: Callable[[str], Run]) -> None:
    run = compose_once(name)
    exact = merge_adapters(run.candidates, run.result.weights, "concat").adapter
    written = LoraAdapter.load(run.result.folder, run.base.module_table)
    assert max(layer.rank for layer in written.layers.values()) == run.case.options["svd_rank"]
    deltas = {path: layer.delta() for path, layer in exact.layers.items()}
    lost = sum(float((deltas[p] - written.layers[p].delta()).square().sum()) for p in deltas)
    whole = sum(float(delta.square().sum()) for delta in deltas.values())
    assert run.result.svd_error == pytest.approx((lost / whole) ** 0.5, rel=1e-3)
    assert run.result.svd_error > 0.1
    assert (
        furthest(
            logits_of(run.reloaded(), run.base),
            stacked_logits(run.base, [written], (1.0,), "delta"),
        )
        < TOLERANCE
    )


@pytest.mark.parametrize("name", CASES)
def test_the_report_shows_the_adapter_that_was_written(
    name: str, compose_once: Callable[[str], Run]
) -> None:
    run = compose_once(name)
    losses = losses_of(run.reloaded(), run.base)
    row = next(row for row in run.result.report.rows if row.method == "composed")
    assert row.fit.loss == pytest.approx(float(np.mean(losses[:5])), abs=TOLERANCE)
    assert row.held_out is not None
    assert row.held_out.loss == pytest.approx(float(np.mean(losses[5:])), abs=TOLERANCE)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("concat", {}),
        ("svd", {}),
        ("factor", {}),
        ("concat", {"dtype": "bfloat16"}),
        ("concat", {"optimizer": "NGOpt", "selection": "all"}),
    ],
)
def test_searched_weights_reload_too(
    method: Literal["concat", "svd", "factor"],
    changes: dict[str, Any],
    causal: LoadedBase,
    causal_folder: Path,
    tmp_path: Path,
) -> None:
    case = Case("causal", method, CAUSAL_EQUAL if method == "factor" else CAUSAL_MIXED, FULL)
    run = search_case(case, causal, causal_folder, tmp_path, **changes)
    assert any(run.result.weights)
    space = "factor" if method == "factor" else "delta"
    # Whatever the base's precision was in the search, this is what it scored in float32.
    expected = stacked_logits(causal, run.candidates, run.result.weights, space)
    assert furthest(logits_of(run.reloaded(), causal), expected) < TOLERANCE


def test_a_quick_lora_is_in_the_file(
    causal: LoadedBase, causal_folder: Path, tmp_path: Path
) -> None:
    case = Case("causal", "concat", CAUSAL_MIXED)
    run = search_case(case, causal, causal_folder, tmp_path, quick_lora=True)
    losses = losses_of(run.reloaded(), causal)
    row = next(row for row in run.result.report.rows if row.method == "composed")
    assert run.result.weights[-1] == 0.5
    assert row.fit.loss == pytest.approx(float(np.mean(losses[:5])), abs=TOLERANCE)
    assert row.held_out.loss == pytest.approx(float(np.mean(losses[5:])), abs=TOLERANCE)
    assert run.result.recipe["fit_loss"] == pytest.approx(row.fit.loss, abs=TOLERANCE)
