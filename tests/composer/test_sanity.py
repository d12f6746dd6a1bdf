from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from composer.adapter import LoraLayer
from composer.base_model import LoadedBase
from composer.errors import Stopped
from composer.merging import merge_adapters
from composer.report import Canary
from composer.sanity import (
    CANARIES,
    _canary_notes,
    check_sanity,
    norm,
    norm_ratios,
    repeats_itself,
)
from tests.composer.tiny import ATTENTION, T5_ATTENTION, make_adapter


def test_it_works(causal: LoadedBase) -> None:
    parents = [make_adapter(causal, str(seed), seed=seed) for seed in (1, 2)]
    composed = merge_adapters(parents, (0.5, 0.5), "concat").adapter
    found = check_sanity(causal, composed, parents)
    assert 0.5 < found.norm_ratio < 1
    assert found.outliers == {}
    assert [canary.prompt for canary in found.canaries] == list(CANARIES)
    assert found.canaries[0].base != found.canaries[0].composed
    assert not any("layers change" in note for note in found.notes)


def test_the_norm_is_that_of_the_update() -> None:
    layer = LoraLayer(torch.randn(3, 7), torch.randn(5, 3), -1.5)
    assert norm(layer) == pytest.approx(float(layer.delta().norm()), rel=1e-5)


def test_a_layer_that_stands_out_is_named(causal: LoadedBase) -> None:
    parents = [make_adapter(causal, str(seed), seed=seed) for seed in (1, 2)]
    composed = merge_adapters(parents, (0.5, 0.5), "concat").adapter
    layers = dict(composed.layers)
    layers[ATTENTION[1]] = replace(layers[ATTENTION[1]], scaling=7.0)
    found = check_sanity(causal, replace(composed, layers=layers), parents)
    assert list(found.outliers) == [ATTENTION[1]]
    assert found.notes[0].startswith("1 of 4 layers change more than 3 times as much as in any")
    assert ATTENTION[1] in found.notes[0]


def test_layers_without_a_parent_are_not_compared(causal: LoadedBase) -> None:
    parent = make_adapter(causal, "one", modules=ATTENTION[:1])
    composed = make_adapter(causal, "all")
    assert list(norm_ratios(composed, [parent])) == [ATTENTION[0]]
    assert norm_ratios(composed, []) == {}
    assert check_sanity(causal, composed, []).norm_ratio == 0


def test_seq2seq_models_answer_too(seq2seq: LoadedBase) -> None:
    composed = make_adapter(seq2seq, "one", modules=T5_ATTENTION)
    assert len(check_sanity(seq2seq, composed, [composed]).canaries) == len(CANARIES)


def test_prompts_that_do_not_fit_are_left_out(
    causal: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter(causal, "one")
    monkeypatch.setattr(causal.tokenizer, "model_max_length", 35)
    assert len(check_sanity(causal, adapter, [adapter]).canaries) == 1
    monkeypatch.setattr(causal.tokenizer, "model_max_length", 20)
    assert check_sanity(causal, adapter, [adapter]).canaries == ()


def test_a_stop_is_heard(causal: LoadedBase) -> None:
    adapter = make_adapter(causal, "one")
    with pytest.raises(Stopped):
        check_sanity(causal, adapter, [adapter], should_stop=lambda: True)


@pytest.mark.parametrize(
    ("answer", "repeats"),
    [("the " * 9, True), ("so it so it so it so it", True), ("the the", False), ("", False)],
)
def test_repetition_is_seen(answer: str, repeats: bool) -> None:
    assert repeats_itself(answer) == repeats


def test_what_the_base_could_say_is_missed() -> None:
    canaries = [
        Canary("a", "fine", ""),
        Canary("b", "fine", "no " * 12),
        Canary("c", "no " * 12, "no " * 12),
        Canary("d", "", ""),
    ]
    assert _canary_notes(canaries) == [
        "It answers nothing to “a”, which the base answers.",
        "It repeats itself on “b”, where the base does not.",
    ]
