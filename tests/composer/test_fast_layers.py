from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM
from transformers.activations import NewGELUActivation

from composer.base_model import LoadedBase
from composer.fast_layers import ATTENTION, OneDnnLinear, has_onednn, speed_up

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not has_onednn(), reason="no oneDNN on this machine")


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), NewGELUActivation(), nn.Linear(6, 4, bias=False))


@needs_onednn
def test_it_works() -> None:
    plain, fast = small(), small()
    speed_up(fast, CPU, torch.float32)
    assert isinstance(fast[0], OneDnnLinear)
    with torch.inference_mode():
        for shape in ((5, 8), (2, 3, 8), (0, 8)):
            x = torch.randn(shape)
            assert torch.allclose(plain(x), fast(x), atol=1e-6)
        strided = torch.randn(8, 5).T
        assert torch.allclose(plain(strided), fast(strided), atol=1e-6)


def test_gradients_are_those_of_the_plain_layers() -> None:
    plain, fast = small(), small()
    speed_up(fast, CPU, torch.float32)
    inputs = [torch.ones(3, 8, requires_grad=True) for _ in range(2)]
    for model, x in zip((plain, fast), inputs, strict=True):
        model(x).sum().backward()
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-6)


def test_a_copy_computes_with_its_own_weights() -> None:
    model = small()
    speed_up(model, CPU, torch.float32)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[0].weight.zero_()
        assert not torch.allclose(twin(torch.ones(1, 8)), model(torch.ones(1, 8)))


def test_other_dtypes_and_devices_keep_their_layers() -> None:
    half, far = small(), small()
    speed_up(half, CPU, torch.bfloat16)
    speed_up(far, torch.device("meta"), torch.float32)
    assert type(half[0]) is type(far[0]) is nn.Linear
    fast = small()
    speed_up(fast, CPU, torch.float32)
    fast.to(torch.bfloat16)
    assert fast(torch.ones(1, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_attention_with_a_position_bias_is_the_plain_one(
    seq2seq: LoadedBase, seq2seq_folder: Path
) -> None:
    plain = AutoModelForSeq2SeqLM.from_pretrained(seq2seq_folder, dtype=torch.float32).eval()
    assert seq2seq.model.config._attn_implementation == ATTENTION
    batch = {
        "input_ids": torch.tensor([[5, 9, 40, 33], [7, 7, 257, 257]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "labels": torch.tensor([[4, 8, 256], [9, 256, -100]]),
    }
    with torch.inference_mode():
        expected, found = (model(**batch).logits for model in (plain, seq2seq.model))
        answers = [
            model.generate(input_ids=batch["input_ids"], max_new_tokens=5)
            for model in (plain, seq2seq.model)
        ]
    assert torch.allclose(expected, found, atol=1e-5)
    assert torch.equal(*answers)


def test_in_16_bits_attention_is_as_near_to_float32_as_the_plain_one(
    seq2seq_folder: Path,
) -> None:
    load = AutoModelForSeq2SeqLM.from_pretrained
    exact = load(seq2seq_folder, dtype=torch.float32).eval()
    plain, fast = (load(seq2seq_folder, dtype=torch.bfloat16).eval() for _ in range(2))
    speed_up(fast, CPU, torch.bfloat16)
    assert fast.config._attn_implementation == ATTENTION
    generator = torch.Generator().manual_seed(0)
    batch = {
        "input_ids": torch.randint(0, 256, (6, 20), generator=generator),
        "attention_mask": torch.ones(6, 20, dtype=torch.long).tril(14),
        "labels": torch.randint(0, 256, (6, 7), generator=generator),
    }
    with torch.inference_mode():
        wanted, beside, found = (model(**batch).logits.float() for model in (exact, plain, fast))
    assert (found - wanted).square().mean() < 2 * (beside - wanted).square().mean()
    # A padded token says nothing: other tokens there change no answer.
    other = batch["input_ids"].where(batch["attention_mask"] == 1, 5)
    with torch.inference_mode():
        again = fast(**{**batch, "input_ids": other}).logits.float()
    assert torch.allclose(again, found, atol=1e-2)


def test_gradients_flow_through_attention_in_16_bits(seq2seq_folder: Path) -> None:
    load = AutoModelForSeq2SeqLM.from_pretrained
    plain, fast = (load(seq2seq_folder, dtype=torch.bfloat16).eval() for _ in range(2))
    speed_up(fast, CPU, torch.bfloat16)
    batch = {
        "input_ids": torch.tensor([[5, 9, 40, 33], [7, 7, 257, 257]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "labels": torch.tensor([[4, 8, 256], [9, 256, -100]]),
    }
    for model in (plain, fast):
        model(**batch).loss.backward()
    theirs, ours = (
        model.encoder.block[0].layer[0].SelfAttention.q.weight for model in (plain, fast)
    )
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)
