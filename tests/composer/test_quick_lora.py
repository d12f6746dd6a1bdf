from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from composer import quick_lora
from composer.adapter import LoraAdapter, LoraLayer
from composer.base_model import LoadedBase
from composer.errors import SearchError, Stopped, StorageFull
from composer.quick_lora import (
    QUICK_LORA,
    LoraShape,
    QuickLoraSettings,
    TrainingRun,
    train_quick_lora,
)
from composer.scoring import Scorer, encode_examples
from composer.stacking import AdapterStack
from tests.composer.tiny import (
    ATTENTION,
    BASE_NAME,
    ROWS,
    T5_ATTENTION,
    make_adapter,
    max_difference,
)

SETTINGS = QuickLoraSettings(steps=12, learning_rate=1e-2)


def shape_of(base: LoadedBase) -> LoraShape:
    paths = T5_ATTENTION if base.is_seq2seq else ATTENTION
    return LoraShape(dict.fromkeys(paths, (4, 2.0)))


def loss_of(base: LoadedBase, *adapters: LoraAdapter) -> float:
    with AdapterStack(base, adapters) as stack:
        rows = encode_examples(base, ROWS)
        return float(Scorer(base, rows).losses(stack, np.ones((1, len(adapters)))).mean())


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_it_works(kind: str, request: pytest.FixtureRequest) -> None:
    base: LoadedBase = request.getfixturevalue(kind)
    heard: list[tuple[int, float]] = []
    trained = train_quick_lora(
        base,
        encode_examples(base, ROWS),
        shape_of(base),
        SETTINGS,
        run=TrainingRun(on_step=lambda done, loss: heard.append((done, loss))),
    )
    still = make_adapter(base, modules=tuple(shape_of(base).layers), size=0.0)
    assert [done for done, _ in heard] == list(range(1, 13))
    assert heard[0][1] == pytest.approx(loss_of(base, still), rel=1e-5)
    assert loss_of(base, trained.adapter) < 0.9 * heard[0][1]
    assert trained.steps == 12
    adapter = trained.adapter
    assert (adapter.name, adapter.base_name) == (QUICK_LORA, BASE_NAME)
    assert {(layer.rank, layer.scaling) for layer in adapter.layers.values()} == {(4, 2.0)}
    assert not any(item.a.requires_grad or item.b.requires_grad for item in adapter.layers.values())


def test_the_same_seed_gives_the_same_lora(causal: LoadedBase) -> None:
    rows = encode_examples(causal, ROWS)
    runs = [
        train_quick_lora(causal, rows, shape_of(causal), replace(SETTINGS, seed=seed)).adapter
        for seed in (1, 1, 2)
    ]
    assert max_difference(runs[0], runs[1]) == 0
    assert max_difference(runs[0], runs[2]) > 0


def test_it_learns_what_the_pool_does_not_know(causal: LoadedBase) -> None:
    """Beneath it lies an adapter of other layers, too; the two add up to less than either."""
    beneath = make_adapter(causal, modules=(*ATTENTION[:2], "model.layers.1.mlp.up_proj"), size=0.1)
    rows = encode_examples(causal, ROWS)
    heard: list[float] = []
    trained = train_quick_lora(
        causal,
        rows,
        shape_of(causal),
        SETTINGS,
        beneath=beneath,
        run=TrainingRun(on_step=lambda _, loss: heard.append(loss)),
    )
    assert heard[0] == pytest.approx(loss_of(causal, beneath), rel=1e-5)
    assert loss_of(causal, beneath, trained.adapter) < loss_of(causal, beneath)


def test_a_step_sees_as_many_rows_as_fit(causal: LoadedBase) -> None:
    rows = encode_examples(causal, ROWS)
    settings = QuickLoraSettings(steps=16, step_tokens=2 * max(row.n_tokens for row in rows))
    batches = quick_lora._batches(rows, settings)
    assert len(batches) == 16
    assert all(1 <= len(batch) <= 3 for batch in batches)
    seen = [row for batch in batches for row in batch]
    assert sorted(seen[:8]) == list(range(8))
    assert quick_lora._batches(rows, replace(settings, step_tokens=1))[0] != []
    assert sorted(quick_lora._batches(rows, SETTINGS)[0]) == list(range(8))


def test_the_shape_is_what_most_of_the_pool_has(causal: LoadedBase) -> None:
    pool = [
        make_adapter(causal, rank=4),
        make_adapter(causal, rank=8, modules=ATTENTION[:1]),
        make_adapter(causal, rank=8, scaling=0.5, modules=ATTENTION[:2]),
        make_adapter(causal, rank=8, modules=ATTENTION[:1]),
    ]
    shape = LoraShape.like(pool)
    assert list(shape.layers) == list(ATTENTION)
    assert shape.layers[ATTENTION[0]] == (8, 2.0)
    assert shape.layers[ATTENTION[3]] == (4, 2.0)


@pytest.mark.parametrize("written_every_step", [True, False])
def test_a_stopped_training_resumes_to_the_same_lora(
    written_every_step: bool, causal: LoadedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_lora, "CHECKPOINT_SECONDS", 0.0 if written_every_step else 1e9)
    rows = encode_examples(causal, ROWS)
    undisturbed = train_quick_lora(causal, rows, shape_of(causal), SETTINGS).adapter
    heard: list[int] = []
    run = TrainingRun(
        on_step=lambda done, _: heard.append(done),
        should_stop=lambda: len(heard) == 5,
        checkpoint=tmp_path / "made" / "training.safetensors",
        fingerprint="this one",
    )
    with pytest.raises(Stopped):
        train_quick_lora(causal, rows, shape_of(causal), SETTINGS, run=run)
    assert heard == [1, 2, 3, 4, 5]
    resumed = train_quick_lora(
        causal, rows, shape_of(causal), SETTINGS, run=replace(run, should_stop=lambda: False)
    ).adapter
    assert heard == list(range(1, 13))
    assert max_difference(undisturbed, resumed) == 0
    # All is done: nothing is trained a third time.
    again = train_quick_lora(causal, rows, shape_of(causal), SETTINGS, run=run).adapter
    assert heard == list(range(1, 13))
    assert max_difference(undisturbed, again) == 0


@pytest.mark.parametrize("change", ["fingerprint", "settings", "shape", "torn", "foreign"])
def test_a_checkpoint_of_another_training_is_not_resumed(
    change: str, causal: LoadedBase, tmp_path: Path
) -> None:
    rows = encode_examples(causal, ROWS)
    settings, shape, path = replace(SETTINGS, steps=3), shape_of(causal), tmp_path / "c"
    run = TrainingRun(checkpoint=path)
    train_quick_lora(causal, rows, shape, settings, run=run)
    heard: list[int] = []
    run = replace(run, on_step=lambda done, _: heard.append(done))
    if change == "fingerprint":
        run = replace(run, fingerprint="another")
    elif change == "settings":
        settings = replace(settings, seed=7)
    elif change == "shape":
        shape = LoraShape(dict.fromkeys(ATTENTION, (3, 2.0)))
    elif change == "torn":
        path.write_bytes(path.read_bytes()[:100])
    else:
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(1)}, path)
    train_quick_lora(causal, rows, shape, settings, run=run)
    assert heard == [1, 2, 3]


def test_a_checkpoint_that_cannot_be_written_is_told(causal: LoadedBase, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = TrainingRun(checkpoint=tmp_path / "file" / "training.safetensors")
    with pytest.raises(StorageFull, match=r"training\.safetensors cannot be written"):
        train_quick_lora(causal, encode_examples(causal, ROWS), shape_of(causal), SETTINGS, run=run)


def test_a_loss_that_is_no_number_ends_the_training(causal: LoadedBase) -> None:
    rows = encode_examples(causal, ROWS)
    wild = make_adapter(causal)
    layers = {p: LoraLayer(x.a * 1e30, x.b * 1e30, 2.0) for p, x in wild.layers.items()}
    with pytest.raises(SearchError, match="no number"):
        train_quick_lora(
            causal, rows, shape_of(causal), SETTINGS, beneath=replace(wild, layers=layers)
        )
    trained = train_quick_lora(
        causal, rows, shape_of(causal), replace(SETTINGS, learning_rate=1e30)
    )
    assert 1 <= trained.steps < 12
    assert all(layer.a.isfinite().all() for layer in trained.adapter.layers.values())
