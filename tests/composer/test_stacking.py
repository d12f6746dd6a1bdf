from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from composer.base_model import LoadedBase
from composer.errors import BaseModelError, IncompatibleAdapters
from composer.merging import MergeMethod, merge_adapters
from composer.stacking import AdapterStack, Space
from tests.composer.tiny import ATTENTION, T5_ATTENTION, make_adapter

IDS = torch.tensor([[5, 9, 40, 33, 2], [7, 7, 60, 1, 100]])


def logits_of(base: LoadedBase, stack: AdapterStack, weights: list[list[float]]) -> torch.Tensor:
    inputs = {"decoder_input_ids": IDS} if base.is_seq2seq else {}
    with torch.inference_mode(), stack.applied(torch.tensor(weights)):
        return base.model(input_ids=IDS, use_cache=False, **inputs).logits


def test_it_works(causal: LoadedBase) -> None:
    with AdapterStack(causal, [make_adapter(causal)]) as stack:
        plain = logits_of(causal, stack, [[0.0], [0.0]])
        changed = logits_of(causal, stack, [[1.0], [1.0]])
    assert not torch.allclose(plain, changed, atol=1e-2)


def test_rows_of_one_batch_may_have_their_own_weights(causal: LoadedBase) -> None:
    adapters = [make_adapter(causal, str(seed), seed=seed, rank=seed) for seed in (2, 3)]
    with AdapterStack(causal, adapters) as stack:
        both = logits_of(causal, stack, [[0.5, -1.0], [0.0, 0.7]])
        first = logits_of(causal, stack, [[0.5, -1.0]] * 2)
        second = logits_of(causal, stack, [[0.0, 0.7]] * 2)
    assert torch.allclose(both[0], first[0], atol=1e-5)
    assert torch.allclose(both[1], second[1], atol=1e-5)


def test_zero_weights_leave_the_base_exactly(causal: LoadedBase) -> None:
    with torch.inference_mode():
        plain = causal.model(input_ids=IDS).logits
    with AdapterStack(causal, [make_adapter(causal)]) as stack:
        assert torch.equal(logits_of(causal, stack, [[0.0], [0.0]]), plain)


def test_nothing_is_left_behind(causal: LoadedBase) -> None:
    with torch.inference_mode():
        before = causal.model(input_ids=IDS).logits
        with AdapterStack(causal, [make_adapter(causal)]) as stack:
            logits_of(causal, stack, [[1.0], [1.0]])
        after = causal.model(input_ids=IDS).logits
    assert torch.equal(before, after)


# peft asks transformers for a name that the next major version drops.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("method", ["factor", "concat", "svd"])
@pytest.mark.parametrize("name", ["causal", "seq2seq"])
def test_peft_reloads_what_the_search_scored(
    method: MergeMethod, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base: LoadedBase = request.getfixturevalue(name)
    folder: Path = request.getfixturevalue(f"{name}_folder")
    modules = T5_ATTENTION if base.is_seq2seq else ATTENTION
    ranks = (4, 4, 4) if method == "factor" else (4, 2, 3)
    adapters = [
        make_adapter(base, str(i), seed=i, rank=rank, modules=modules, size=0.15)
        for i, rank in enumerate(ranks)
    ]
    if method != "factor":
        # Other modules and, within one adapter, other ranks.
        part = make_adapter(
            base, "3", seed=9, ranks={modules[0]: 1}, modules=modules[:3], size=0.15
        )
        adapters.append(part)
    weights = [0.8, -0.5, 0.3, 0.6][: len(adapters)]
    space: Space = "factor" if method == "factor" else "delta"
    with AdapterStack(base, adapters, space=space) as stack:
        scored = logits_of(base, stack, [weights] * 2)
    merged = merge_adapters(adapters, weights, method, svd_rank=13 if method == "svd" else None)
    merged.adapter.save(tmp_path / "out", base.module_table)
    kind = AutoModelForSeq2SeqLM if base.is_seq2seq else AutoModelForCausalLM
    plain = kind.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, tmp_path / "out").eval()
    inputs = {"decoder_input_ids": IDS} if base.is_seq2seq else {}
    with torch.inference_mode():
        reloaded = model(input_ids=IDS, **inputs).logits
    with torch.inference_mode():
        unadapted = plain_logits(base, inputs)
    assert torch.allclose(scored, reloaded, atol=1e-4)
    assert not torch.allclose(scored, unadapted, atol=1e-2)


def plain_logits(base: LoadedBase, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return base.model(input_ids=IDS, **inputs).logits


def test_factor_space_refuses_unequal_ranks(causal: LoadedBase) -> None:
    adapters = [make_adapter(causal, str(rank), rank=rank) for rank in (2, 3)]
    with pytest.raises(IncompatibleAdapters, match="equal ranks"):
        AdapterStack(causal, adapters, space="factor")


def test_an_adapter_of_another_base_is_refused(causal: LoadedBase) -> None:
    stranger = replace(
        make_adapter(causal), layers={"x.y": make_adapter(causal).layers[ATTENTION[0]]}
    )
    with pytest.raises(BaseModelError, match=r"no layer x\.y"):
        AdapterStack(causal, [stranger])


@pytest.mark.parametrize("space", ["delta", "factor"])
def test_layers_that_see_flattened_rows_get_their_rows_weights(
    causal: LoadedBase, space: Space
) -> None:
    adapters = [make_adapter(causal, str(seed), seed=seed) for seed in (1, 2)]
    linear = causal.model.get_submodule(ATTENTION[0])
    assert isinstance(linear, nn.Linear)
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[0.5, -1.0], [0.0, 0.7]])
    with (
        torch.inference_mode(),
        AdapterStack(causal, adapters, space=space) as stack,
        stack.applied(weights),
    ):
        shaped = linear(x)
        flat = linear(x.reshape(10, 32)).reshape(2, 5, -1)
    assert torch.allclose(shaped, flat, atol=1e-5)


def test_an_empty_stack_is_the_base(causal: LoadedBase) -> None:
    with AdapterStack(causal, []) as stack:
        assert np.isfinite(logits_of(causal, stack, [[], []]).numpy()).all()


@pytest.mark.parametrize("space", ["delta", "factor"])
def test_folding_computes_what_the_tokens_would(
    causal: LoadedBase, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many tokens are worth folding; the same vectors with folding switched off agree."""
    adapters = [make_adapter(causal, str(seed), seed=seed) for seed in (1, 2, 3)]
    vectors = [[0.5, -1.0, 0.2], [0.5, -0.5, 0.2], [0.0, 0.0, 0.0], [0.5, -0.5, 0.2], [0, 1, 0]]
    ids = IDS.repeat(1, 30)

    def all_logits() -> list[torch.Tensor]:
        with AdapterStack(causal, adapters, space=space) as stack, torch.inference_mode():
            logits = []
            for vector in vectors:
                with stack.applied(torch.tensor([vector] * 2, dtype=torch.float32)):
                    # Short passes in between use what is folded already, or the tokens.
                    logits += [causal.model(input_ids=tokens).logits for tokens in (ids, IDS)]
        return logits

    folded = all_logits()
    monkeypatch.setattr("composer.stacking.FOLDED_BYTES", 0)
    for one, other in zip(folded, all_logits(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_rows_near_each_other_share_what_is_folded(
    causal: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A greedy population: one vector in the middle, every row a step away from it."""
    adapters = [make_adapter(causal, str(seed), seed=seed) for seed in range(4)]
    rows = torch.tensor([0.5, -1.0, 0.2, 0.0]) + 0.5 * torch.eye(4)
    ids = IDS[:1].repeat(4, 40)

    def logits() -> torch.Tensor:
        with (
            AdapterStack(causal, adapters) as stack,
            torch.inference_mode(),
            stack.applied(rows),
        ):
            return causal.model(input_ids=ids).logits

    together = logits()
    monkeypatch.setattr("composer.stacking.FOLDED_BYTES", 0)
    assert torch.allclose(together, logits(), atol=1e-4)


def test_gradients_pass_through_the_stack(causal: LoadedBase) -> None:
    adapters = [make_adapter(causal)]
    linear = causal.model.get_submodule(ATTENTION[0])
    x = torch.ones(1, 300, 32, requires_grad=True)
    for space in ("delta", "factor"):
        with (
            AdapterStack(causal, adapters, space=space) as stack,
            stack.applied(torch.tensor([[1.0]])),
        ):
            linear(x).sum().backward()
    delta = adapters[0].layers[ATTENTION[0]].delta()
    assert isinstance(linear, nn.Linear)
    expected = 2 * (linear.weight + delta).sum(dim=0)
    assert x.grad is not None
    assert torch.allclose(x.grad[0, 0], expected, atol=1e-3)


def test_a_stack_inside_a_stack_adds_up(causal: LoadedBase) -> None:
    first, second = (make_adapter(causal, str(seed), seed=seed) for seed in (1, 2))
    one = torch.ones(2, 1)
    with AdapterStack(causal, [first, second]) as both:
        together = logits_of(causal, both, [[1.0, 1.0]] * 2)
    with (
        AdapterStack(causal, [first]) as outer,
        AdapterStack(causal, [second]) as inner,
        outer.applied(one),
    ):
        assert torch.allclose(together, logits_of(causal, inner, [[1.0]] * 2), atol=1e-4)
    with AdapterStack(causal, [first, second]) as both:
        assert torch.allclose(together, logits_of(causal, both, [[1.0, 1.0]] * 2), atol=1e-5)
