from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from composer.adapter import LoraAdapter, LoraLayer
from composer.base_model import BaseModelCache, BaseModelSource, LoadedBase
from composer.blocks import most_blocks, split_into_blocks
from composer.composing import (
    ComposeRequest,
    EvaluationScored,
    PhaseStarted,
    PoolMember,
    Progress,
    ReferenceScored,
    TrainingStepped,
    compose,
    finishing,
)
from composer.errors import (
    BaseModelError,
    IncompatibleAdapters,
    InvalidAdapter,
    InvalidExamples,
    SearchError,
    Stopped,
    StorageFull,
)
from composer.examples import Example
from composer.gradient import STEP_EVALUATIONS
from composer.progress import AnswersScored, CandidateScored, LogLine
from composer.quick_lora import QUICK_LORA
from composer.scoring import Scorer, encode_examples
from composer.stacking import AdapterStack
from tests.composer.tiny import ATTENTION, BASE_NAME, ROWS, T5_ATTENTION, make_adapter

Make = Callable[..., ComposeRequest]


@pytest.fixture
def make_request(causal: LoadedBase, causal_folder: Path, tmp_path: Path) -> Make:
    def make(adapters: list[LoraAdapter] | None = None, **changes) -> ComposeRequest:
        if adapters is None:
            adapters = [make_adapter(causal, f"own/{i}", seed=i, size=0.1) for i in range(4)]
        pool = []
        for i, adapter in enumerate(adapters):
            adapter.save(tmp_path / "pool" / str(i), causal.module_table)
            pool.append(PoolMember(adapter.name, tmp_path / "pool" / str(i), revision="a" * 40))
        request = ComposeRequest(
            base=BaseModelSource("folder", str(causal_folder), name=BASE_NAME),
            pool=tuple(pool),
            examples=ROWS,
            output_folder=tmp_path / "out",
            n_candidates=3,
            optimizer="greedy",
            budget=12,
            dtype="float32",
            device="cpu",
            max_new_tokens=8,
        )
        return replace(request, **changes)

    return make


def test_it_works(make_request: Make, tmp_path: Path) -> None:
    events: list[Progress] = []
    result = compose(make_request(), events.append)
    assert sorted(path.name for path in result.folder.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "recipe.json",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "pool"]
    assert len(result.names) == len(result.weights) == 3
    assert result.evaluations_spent == 4 + 13
    assert result.optimizer_resolved == "greedy"
    assert (result.report.n_fit, result.report.n_held_out) == (5, 3)
    assert [row.method for row in result.report.rows] == [
        "base",
        "uniform",
        "best_single",
        "composed",
    ]
    assert json.loads((result.folder / "recipe.json").read_text()) == result.recipe
    assert (result.folder / "README.md").read_text() == result.card
    assert result.summary.base_model_name_or_path == BASE_NAME
    phases = [event.phase for event in events if isinstance(event, PhaseStarted)]
    assert phases == ["loading", "screening", "searching", "merging", "scoring", "writing"]
    assert sum(isinstance(event, CandidateScored) for event in events) == 4
    assert any(isinstance(event, AnswersScored) for event in events)
    assert any(isinstance(event, LogLine) for event in events)
    references = {e.method: e.fit_loss for e in events if isinstance(e, ReferenceScored)}
    assert set(references) == {"base", "best_single", "uniform"}
    evaluations = [event for event in events if isinstance(event, EvaluationScored)]
    assert [event.number for event in evaluations] == list(range(13))
    assert evaluations[0].fit_loss == pytest.approx(references["base"], rel=1e-5)
    assert evaluations[1].fit_loss == pytest.approx(references["best_single"], rel=1e-4)
    best = min(evaluations, key=lambda event: event.loss)
    assert best.weights == result.weights
    assert [e for e in evaluations if e.is_best][-1] == best


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("method", ["concat", "factor", "svd"])
def test_the_file_gives_the_loss_that_was_found(
    method: str, make_request: Make, causal: LoadedBase, causal_folder: Path
) -> None:
    result = compose(make_request(merge_method=method, svd_rank=12))
    encoded = encode_examples(causal, ROWS[:5])
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(causal_folder), result.folder
    ).eval()
    losses = []
    for item in encoded:
        ids = torch.tensor([[*item.prompt, *item.answer]])
        labels = torch.tensor([[*[-100] * len(item.prompt), *item.answer]])
        with torch.inference_mode():
            losses.append(float(model(input_ids=ids, labels=labels).loss))
    composed = result.report.rows[-1]
    assert sum(losses) / len(losses) == pytest.approx(composed.fit.loss, abs=1e-4)
    assert result.recipe["fit_loss"] == pytest.approx(composed.fit.loss, abs=1e-4)
    assert (result.svd_error is not None) == (method == "svd")


def test_it_never_fits_worse_than_the_base_and_the_best_single(make_request: Make) -> None:
    report = compose(make_request(l1_penalty=0.0)).report
    fit = {row.method: row.fit.loss for row in report.rows}
    assert fit["composed"] <= min(fit["base"], fit["best_single"]) + 1e-4


def test_when_all_candidates_are_worse_the_base_is_kept(
    make_request: Make, causal: LoadedBase
) -> None:
    loud = [make_adapter(causal, f"loud/{i}", seed=i, size=3.0) for i in range(2)]
    result = compose(make_request(loud, optimizer="NGOpt", budget=2))
    assert result.weights == (0.0, 0.0)
    base, composed = result.report.rows[0], result.report.rows[-1]
    assert composed.fit.loss == pytest.approx(base.fit.loss, abs=1e-5)
    assert result.report.verdict.winner != "uniform"


@pytest.mark.parametrize("optimizer", ["greedy+gn", "NGOpt"])
def test_the_same_request_gives_the_same_adapter(
    optimizer: str, make_request: Make, tmp_path: Path
) -> None:
    request = make_request(optimizer=optimizer)
    first = compose(request)
    second = compose(replace(request, output_folder=tmp_path / "again"))
    assert first.weights == second.weights
    assert first.summary.weights_sha256 == second.summary.weights_sha256


@pytest.mark.parametrize("optimizer", ["greedy", "greedy+gn", "NGOpt"])
def test_a_stopped_run_resumes_to_the_same_weights(
    optimizer: str, make_request: Make, tmp_path: Path
) -> None:
    undisturbed = compose(make_request(optimizer=optimizer))
    request = make_request(
        optimizer=optimizer,
        checkpoint=tmp_path / "checkpoint.json",
        output_folder=tmp_path / "resumed",
    )
    seen: list[Progress] = []

    def stop() -> bool:
        return any(isinstance(event, EvaluationScored) and event.number >= 5 for event in seen)

    with pytest.raises(Stopped):
        compose(request, seen.append, stop)
    assert not request.output_folder.exists()
    assert compose(request).weights == undisturbed.weights


@pytest.mark.parametrize(
    "phase", ["loading", "screening", "searching", "merging", "scoring", "writing"]
)
def test_a_stop_in_any_phase_leaves_nothing(phase: str, make_request: Make, tmp_path: Path) -> None:
    seen: list[str] = []

    def hear(event: Progress) -> None:
        if isinstance(event, PhaseStarted):
            seen.append(event.phase)

    # The last phase is short: a stop is asked for as it begins.
    before = {
        "loading": 0,
        "screening": 1,
        "searching": 2,
        "merging": 3,
        "scoring": 4,
        "writing": 5,
    }
    with pytest.raises(Stopped):
        compose(make_request(), hear, lambda: len(seen) >= before[phase])
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]


def test_few_rows_hold_nothing_out(make_request: Make) -> None:
    report = compose(make_request(examples=ROWS[:1])).report
    assert (report.n_fit, report.n_held_out) == (1, 0)
    assert report.verdict.headline == "Nothing was held out."


def test_a_composition_is_looked_at_beside_its_parents(make_request: Make) -> None:
    result = compose(make_request(hand_weights={"own/0": 1.0, "own/1": 0.5}))
    sanity = result.report.sanity
    assert 1 < sanity.norm_ratio < 1.5
    assert len(sanity.canaries) == 4
    assert result.report.to_dict()["sanity"]["canaries"][0]["prompt"].startswith("The capital")
    assert "## Beside its parents" in result.card


def test_folds_judge_every_row_by_a_search_that_did_not_see_it(
    make_request: Make, tmp_path: Path
) -> None:
    events: list[Progress] = []
    plain = compose(make_request(output_folder=tmp_path / "plain"))
    result = compose(make_request(folds=4), events.append)
    # The adapter is the same; what the folds cost is counted and told.
    assert result.summary.weights_sha256 == plain.summary.weights_sha256
    assert result.recipe["evaluations"] == {"alone": 4, "search": 13, "folds": 4 * (4 + 13)}
    assert result.evaluations_spent == plain.evaluations_spent + 68
    assert any(isinstance(e, LogLine) and "took 68 evaluations" in e.text for e in events)
    assert result.report.folds == 4
    rows = {row.method: row.cross_validated for row in result.report.rows}
    assert {score.n for score in rows.values()} == {8}
    assert "Cross-validation: 68 evaluations more." in result.card
    assert "4 folds |" in result.card


def test_a_fold_is_a_composition_of_the_other_rows(make_request: Make, tmp_path: Path) -> None:
    folded = compose(make_request(folds=2)).report
    losses: dict[str, list[float]] = {}
    for held in (ROWS[::2], ROWS[1::2]):
        others = tuple(row for row in ROWS if row not in held)
        folder = tmp_path / held[0].output
        part = compose(make_request(examples=others, held_out=held, output_folder=folder)).report
        for row in part.rows:
            losses.setdefault(row.method, []).append(row.held_out.loss)
    for row in folded.rows:
        assert row.cross_validated.loss == pytest.approx(sum(losses[row.method]) / 2, abs=1e-4)


def test_more_folds_than_rows_leave_one_out(make_request: Make) -> None:
    report = compose(make_request(folds=10, examples=ROWS[:3], budget=2)).report
    assert (report.folds, report.n_held_out) == (3, 0)
    assert "Cross-validated in 3 folds over all 3 rows" in report.verdict.detail


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"folds": 1}, "at least 2 folds"),
        ({"folds": 2, "hand_weights": {"own/0": 1.0}}, "nothing to validate"),
        ({"folds": 2, "quick_lora": True}, "trained in every fold"),
    ],
)
def test_folds_that_make_no_sense_are_refused(
    changes: dict[str, object], words: str, make_request: Make
) -> None:
    with pytest.raises(SearchError, match=words):
        compose(make_request(**changes))


def test_own_held_out_rows_and_prompting(make_request: Make) -> None:
    report = compose(make_request(held_out=ROWS[:2], prompting=True)).report
    assert (report.n_fit, report.n_held_out) == (8, 2)
    assert [row.method for row in report.rows][1] == "prompting"


def test_a_pool_of_one_and_a_budget_of_one(make_request: Make, causal: LoadedBase) -> None:
    result = compose(make_request([make_adapter(causal, "only")], budget=1))
    assert result.names == ("only",)
    assert result.evaluations_spent == 3


@pytest.mark.parametrize("selection", ["all", "random", "similar"])
def test_other_selections_start_at_zero(selection: str, make_request: Make) -> None:
    result = compose(make_request(selection=selection))
    assert len(result.names) == (4 if selection == "all" else 3)


def test_copies_of_an_adapter_leave_room_for_others(
    make_request: Make, causal: LoadedBase, tmp_path: Path
) -> None:
    own = [make_adapter(causal, f"own/{i}", seed=i, size=0.1) for i in range(3)]
    copies = [make_adapter(causal, f"copy/{i}", seed=0, size=0.1) for i in range(4)]
    composed = compose(make_request([own[0], *copies, *own[1:]]))
    assert set(composed.names) == {"own/0", "own/1", "own/2"}
    everything = compose(
        make_request([own[0], copies[0]], selection="all", output_folder=tmp_path / "all")
    )
    assert set(everything.names) == {"own/0", "copy/0"}


def test_weights_set_by_hand_are_taken_as_they_are(make_request: Make) -> None:
    result = compose(make_request(hand_weights={"own/2": 0.5, "own/0": -0.25, "own/1": 0.0}))
    assert dict(zip(result.names, result.weights, strict=True)) == {"own/2": 0.5, "own/0": -0.25}
    assert result.optimizer_resolved == "by hand"


def test_mixed_adapters_are_composed(make_request: Make, causal: LoadedBase) -> None:
    adapters = [
        make_adapter(causal, "a", seed=1, rank=2, size=0.1),
        make_adapter(causal, "b", seed=2, rank=5, modules=ATTENTION[1:3], size=0.1),
    ]
    assert compose(make_request(adapters)).summary.rank <= 7
    with pytest.raises(IncompatibleAdapters):
        compose(make_request(adapters, merge_method="factor", output_folder=Path("elsewhere")))


def test_too_many_ranks_are_cut_to_what_loaders_accept(
    make_request: Make, causal: LoadedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "DEFAULT", replace(finishing.DEFAULT, rank=6))
    events: list[Progress] = []
    weights = {"own/0": 1.0, "own/1": 1.0}
    result = compose(make_request(hand_weights=weights), events.append)
    assert result.summary.rank == 6
    assert result.svd_error is not None
    assert any(isinstance(event, LogLine) and "cut to 6" in event.text for event in events)


def test_seq2seq_models_compose(
    seq2seq: LoadedBase, seq2seq_folder: Path, tmp_path: Path, make_request: Make
) -> None:
    pool = []
    for i in range(2):
        adapter = make_adapter(seq2seq, f"t5/{i}", seed=i, modules=T5_ATTENTION, size=0.1)
        adapter.save(tmp_path / "t5" / str(i), seq2seq.module_table)
        pool.append(PoolMember(adapter.name, tmp_path / "t5" / str(i)))
    source = BaseModelSource("folder", str(seq2seq_folder), name=BASE_NAME)
    result = compose(replace(make_request(), base=source, pool=tuple(pool)))
    assert "text2text-generation" in result.card


def test_bfloat16_confirms_the_contenders_in_float32(make_request: Make) -> None:
    cache = BaseModelCache()
    result = compose(make_request(dtype="bfloat16", base_cache=cache))
    assert len(cache) == 1  # the base is not held twice
    assert result.recipe["dtype"] == "bfloat16"
    assert math.isfinite(result.recipe["fit_loss"])


def test_an_adapter_that_explodes_is_not_chosen(make_request: Make, causal: LoadedBase) -> None:
    good = make_adapter(causal, "good", seed=1, size=0.1)
    layers = {
        path: LoraLayer(layer.a * 1e30, layer.b * 1e30, 2.0) for path, layer in good.layers.items()
    }
    result = compose(make_request([replace(good, name="wild", layers=layers), good]))
    assert "wild" not in result.names


def test_nothing_but_exploding_adapters_is_an_error(
    make_request: Make, causal: LoadedBase, tmp_path: Path
) -> None:
    good = make_adapter(causal, "wild", seed=1)
    layers = {
        path: LoraLayer(layer.a * 1e30, layer.b * 1e30, 2.0) for path, layer in good.layers.items()
    }
    with pytest.raises(SearchError, match="No adapter gave a loss"):
        compose(make_request([replace(good, layers=layers)]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"pool": ()}, IncompatibleAdapters),
        ({"budget": 0}, SearchError),
        ({"n_candidates": 0}, SearchError),
        ({"optimizer": "Oracle"}, SearchError),
        ({"hand_weights": {"stranger": 1.0}}, SearchError),
        ({"examples": (Example("x" * 400, "y"),)}, InvalidExamples),
        ({"base": BaseModelSource("folder", "/nowhere")}, BaseModelError),
        ({"prompt_format": "chat", "examples": (Example("x" * 400, "y"),)}, InvalidExamples),
    ],
)
def test_bad_requests_are_refused_and_leave_nothing(
    changes: dict[str, object], error: type[Exception], make_request: Make, tmp_path: Path
) -> None:
    with pytest.raises(error):
        compose(make_request(**changes))
    assert not (tmp_path / "out").exists()


def test_two_adapters_of_one_name_are_refused(make_request: Make, causal: LoadedBase) -> None:
    twins = [make_adapter(causal, "same", seed=i) for i in range(2)]
    with pytest.raises(IncompatibleAdapters, match="same name"):
        compose(make_request(twins))


def test_a_broken_pool_member_is_named(make_request: Make) -> None:
    request = make_request()
    (request.pool[1].folder / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(InvalidAdapter):
        compose(request)


def test_a_full_disk_leaves_nothing(
    make_request: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(self: LoraAdapter, folder: Path, paths: object = ()) -> None:
        (folder / "adapter_model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    request = make_request()
    monkeypatch.setattr(LoraAdapter, "save", no_room)
    with pytest.raises(StorageFull):
        compose(request)
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]


def test_judging_uses_the_adapter_that_is_written(make_request: Make, causal: LoadedBase) -> None:
    """A cut rank changes the adapter: the report must show the cut one."""
    result = compose(
        make_request(merge_method="svd", svd_rank=1, hand_weights={"own/0": 1.0, "own/1": 1.0})
    )
    written = LoraAdapter.load(result.folder, causal.module_table)
    with AdapterStack(causal, [written]) as stack:
        scorer = Scorer(causal, encode_examples(causal, ROWS[:5]))
        loss = float(scorer.losses(stack, torch.ones(1, 1).double().numpy()).mean())
    assert result.report.rows[-1].fit.loss == pytest.approx(loss, abs=1e-4)
    assert result.svd_error is not None
    assert 0 < result.svd_error < 1


def test_a_quick_lora_takes_part_and_is_named(make_request: Make, tmp_path: Path) -> None:
    events: list[Progress] = []
    plain = compose(make_request(output_folder=tmp_path / "plain"))
    result = compose(make_request(quick_lora=True), events.append)
    assert result.names == (*plain.names, QUICK_LORA)
    assert result.weights == (*plain.weights, 0.5)
    assert result.recipe["quick_lora"]["steps"] == 25
    assert [parent["adapter"] for parent in result.recipe["parents"]] == list(plain.names)
    assert plain.recipe["quick_lora"] is None
    assert "with gradients" in result.card
    assert "with gradients" not in plain.card
    rows = {row.method: row for row in result.report.rows}
    assert list(rows)[-2:] == ["quick_lora", "composed"]
    assert rows["composed"].fit.loss < plain.report.rows[-1].fit.loss
    steps = [event.done for event in events if isinstance(event, TrainingStepped)]
    assert steps == list(range(1, 51))


def test_a_stop_while_training_resumes_to_the_same_adapter(
    make_request: Make, tmp_path: Path
) -> None:
    undisturbed = compose(make_request(quick_lora=True))
    request = make_request(
        quick_lora=True, checkpoint=tmp_path / "checkpoint.json", output_folder=tmp_path / "resumed"
    )
    seen: list[Progress] = []
    with pytest.raises(Stopped):
        compose(
            request,
            seen.append,
            lambda: any(isinstance(e, TrainingStepped) and e.done >= 30 for e in seen),
        )
    assert not request.output_folder.exists()
    assert compose(request).summary.weights_sha256 == undisturbed.summary.weights_sha256


def test_a_quick_lora_needs_an_exact_sum(make_request: Make) -> None:
    with pytest.raises(IncompatibleAdapters, match="Choose concat or svd"):
        compose(make_request(quick_lora=True, merge_method="factor"))


def test_gradients_are_named_counted_and_off_by_default(make_request: Make, tmp_path: Path) -> None:
    plain = compose(make_request(output_folder=tmp_path / "plain"))
    events: list[Progress] = []
    result = compose(make_request(optimizer="gradient"), events.append)
    assert plain.recipe["gradient"] is None
    assert "with gradients" not in plain.card
    assert result.recipe["gradient"]["steps"] == 3
    assert result.recipe["gradient"]["step_evaluations"] == STEP_EVALUATIONS
    assert result.recipe["block_weights"] == {}
    assert "learned with gradients on 5 rows (3 steps of Adam" in result.card
    assert "without gradients" not in result.card
    assert result.optimizer_resolved == "Adam, with gradients"
    assert result.report.rows[-1].label == "Composed, weights learned with gradients"
    # Four alone, the base, three steps of three, and where the last one ends.
    assert result.evaluations_spent == 4 + 1 + 3 * STEP_EVALUATIONS + 1
    told = [event for event in events if isinstance(event, EvaluationScored)]
    assert min(told, key=lambda event: event.loss).weights == result.weights
    assert told[-1].fit_loss < told[1].fit_loss


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("optimizer", ["gradient", "gauss-newton"])
def test_weights_by_blocks_reload_in_peft_with_the_loss_that_was_found(
    optimizer: str, make_request: Make, causal: LoadedBase, causal_folder: Path
) -> None:
    events: list[Progress] = []
    request = make_request(
        optimizer=optimizer, weight_blocks=2, budget=40, l1_penalty=0.0, prior="zero"
    )
    result = compose(request, events.append)
    by_block = result.recipe["block_weights"]
    assert result.recipe["weight_blocks"] == 2
    assert set(by_block) == set(result.names)
    for name, weight in zip(result.names, result.weights, strict=True):
        assert weight == pytest.approx(sum(by_block[name]) / 2)
        assert len(set(by_block[name])) == 2
    assert "one for each of 2 blocks of layers" in result.card
    best = min((e for e in events if isinstance(e, EvaluationScored)), key=lambda e: e.loss)
    encoded = encode_examples(causal, ROWS[:5])
    with AdapterStack(causal, [LoraAdapter.load(result.folder)]) as stack:
        loss = Scorer(causal, encoded).losses(stack, np.ones((1, 1))).mean()
    assert float(loss) == pytest.approx(best.fit_loss, rel=1e-4)
    # peft computes the very logits of the candidates, each layer with its own weights.
    ids = torch.tensor([encoded[0].prompt])
    pool = {member.name: LoraAdapter.load(member.folder) for member in request.pool}
    parts = split_into_blocks([pool[name] for name in result.names], causal.module_table, 2)
    flat = [by_block[name][block] for block in range(2) for name in result.names]
    with AdapterStack(causal, parts) as stack, stack.applied(torch.tensor([flat])):
        ours = causal.model(ids).logits
    plain = AutoModelForCausalLM.from_pretrained(causal_folder, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(plain, result.folder)(ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_stop_between_gradient_steps_resumes_to_the_same_adapter(
    make_request: Make, tmp_path: Path
) -> None:
    undisturbed = compose(make_request(optimizer="gradient", weight_blocks=2))
    request = make_request(
        optimizer="gradient",
        weight_blocks=2,
        checkpoint=tmp_path / "checkpoint.json",
        output_folder=tmp_path / "resumed",
    )
    seen: list[Progress] = []
    with pytest.raises(Stopped):
        compose(
            request,
            seen.append,
            lambda: any(isinstance(e, EvaluationScored) and e.number >= 4 for e in seen),
        )
    assert (tmp_path / "checkpoint.json").exists()
    assert not request.output_folder.exists()
    resumed = compose(request)
    assert resumed.summary.weights_sha256 == undisturbed.summary.weights_sha256
    assert resumed.recipe["gradient"] == undisturbed.recipe["gradient"]


@pytest.mark.parametrize("optimizer", ["gradient", "gauss-newton"])
@pytest.mark.parametrize("weight_blocks", [1, 2])
def test_a_quick_lora_joins_weights_by_blocks(
    optimizer: str, weight_blocks: int, make_request: Make, causal: LoadedBase
) -> None:
    events: list[Progress] = []
    result = compose(
        make_request(optimizer=optimizer, weight_blocks=weight_blocks, quick_lora=True),
        events.append,
    )
    assert result.recipe["weight_blocks"] == weight_blocks
    assert all(len(item) == 2 for item in result.recipe["block_weights"].values())
    assert result.names[-1] == QUICK_LORA
    assert len(result.names) == len(result.weights) == 4
    told = [event for event in events if isinstance(event, EvaluationScored)]
    assert result.weights[-1] == 0.5
    with AdapterStack(causal, [LoraAdapter.load(result.folder)]) as stack:
        rows = encode_examples(causal, ROWS[:5])
        loss = float(Scorer(causal, rows).losses(stack, np.ones((1, 1))).mean())
    assert loss == pytest.approx(told[-1].fit_loss, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"optimizer": "gradient", "merge_method": "factor"}, IncompatibleAdapters, "exact sum"),
        (
            {"optimizer": "greedy", "weight_blocks": 2},
            SearchError,
            "gauss-newton and gradient",
        ),
        (
            {"optimizer": "gauss-newton", "merge_method": "factor", "weight_blocks": 2},
            IncompatibleAdapters,
            "exact sum",
        ),
        ({"weight_blocks": 0}, SearchError, "number of weight blocks must be at least 1"),
        (
            {"optimizer": "greedy", "prior": "start"},
            SearchError,
            "choose a start",
        ),
        ({"num_workers": 0}, SearchError, "number of workers must be at least 1"),
        ({"optimizer": "gradient", "weight_blocks": 3}, SearchError, "1 to 2 blocks"),
        (
            {"optimizer": "gradient", "weight_blocks": 2, "hand_weights": {"own/0": 1.0}},
            SearchError,
            "one an adapter",
        ),
    ],
)
def test_what_gradients_and_blocks_cannot_do_is_refused(
    changes: dict[str, object], error: type[Exception], words: str, make_request: Make
) -> None:
    with pytest.raises(error, match=words):
        compose(make_request(**changes))


def test_several_candidates_are_asked_for_at_once(make_request: Make, tmp_path: Path) -> None:
    one = compose(make_request(optimizer="DE"))
    many = compose(make_request(optimizer="DE", num_workers=4, output_folder=tmp_path / "many"))
    assert one.evaluations_spent == many.evaluations_spent
    assert many.recipe["num_workers"] == 4
    assert one.recipe["num_workers"] == 1


def test_texts_can_be_compared_by_an_embedding_model(
    make_request: Make, seq2seq_folder: Path
) -> None:
    request = make_request(
        selection="similar", similarity="embedding", embedding_model=str(seq2seq_folder)
    )
    told = "\n".join(f"{row.input} {row.output}" for row in ROWS[:5])
    pool = [replace(item, card_text="" if i else told) for i, item in enumerate(request.pool)]
    result = compose(replace(request, pool=tuple(pool), n_candidates=1))
    assert result.names == ("own/0",)
    assert result.recipe["similarity"] == "embedding"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"similarity": "embedding"}, "Name the embedding model"),
        ({"similarity": "guess"}, "tfidf or embedding"),
    ],
)
def test_an_embedding_needs_a_model(
    changes: dict[str, object], words: str, make_request: Make
) -> None:
    with pytest.raises(SearchError, match=words):
        compose(make_request(**changes))


@pytest.mark.parametrize(
    ("optimizer", "prior", "method", "start", "penalty"),
    [
        ("gauss-newton", "softmax", "concat", 0.33, "held near a mean p of the adapters"),
        ("NGOpt", "mean", "concat", 1 / 3, "held near the mean by 0.05 sum (w - 1/N)^2"),
        ("gauss-newton", "zero", "concat", 0.0, "penalty 0.05 mean |w|"),
        ("gauss-newton", "auto", "factor", 0.0, "penalty 0.05 mean |w|"),
        ("greedy", "auto", "concat", 0.0, "penalty 0.05 mean |w|"),
        ("greedy", "mean", "svd", 1 / 3, "held near the mean by 0.05 sum (w - 1/N)^2"),
    ],
)
def test_a_search_begins_at_the_prior_and_the_card_says_so(
    optimizer: str, prior: str, method: str, start: float, penalty: str, make_request: Make
) -> None:
    events: list[Progress] = []
    request = make_request(optimizer=optimizer, prior=prior, merge_method=method, budget=8)
    result = compose(request, events.append)
    first = next(e for e in events if isinstance(e, EvaluationScored) and e.number == 1)
    assert first.weights[1:] == pytest.approx([start] * 2, abs=0.05)
    assert penalty in result.card
    assert result.recipe["prior"] == (prior if start else "zero")


def test_gauss_newton_begins_at_the_best_adapter_or_at_the_best_of_several_means(
    make_request: Make,
) -> None:
    events: list[Progress] = []
    result = compose(make_request(optimizer="gauss-newton", budget=20), events.append)
    alone = {e.name: e.loss for e in events if isinstance(e, CandidateScored)}
    shares = np.exp([-alone[name] / 0.5 for name in result.names])
    told = [e for e in events if isinstance(e, EvaluationScored)]
    starts = [e.weights for e in told[1:5]]
    wanted = [(1, 0, 0), (1 / 2, 1 / 2, 0), (1 / 3,) * 3, tuple(shares / shares.sum())]
    assert starts == [pytest.approx(item, abs=1e-3) for item in wanted]
    # The first round's centre is the best of them; weights are held near it.
    begun = min(told[1:5], key=lambda e: e.loss)
    assert told[5].weights == begun.weights
    assert told[5].loss == pytest.approx(begun.fit_loss, rel=1e-5)
    assert begun.loss == begun.fit_loss
    far = np.square(np.array(told[6].weights) - begun.weights).sum()
    assert told[6].loss == pytest.approx(told[6].fit_loss + 0.05 * far)
    assert result.recipe["prior"] == "start"
    assert result.recipe["weight_blocks"] == 2
    assert set(result.recipe["block_weights"]) == set(result.names)
    assert "where that is a mean of the best adapters, by 0.05 sum (w - s)^2" in result.card
    assert "without gradients on 5 rows" in result.card
    assert "one for each of 2 blocks of layers" in result.card


def test_a_base_of_one_layer_has_one_block() -> None:
    table = {f"model.layers.{layer}.mlp.up_proj": (4, 4) for layer in range(3)}
    assert most_blocks(table, 2) == 2
    assert most_blocks(table, 5) == 3
    assert most_blocks({"head": (4, 4)}, 2) == 1
