from __future__ import annotations

from pathlib import Path

import pytest
import torch

from composer.base_model import BaseModelSource, LoadedBase, load_base
from composer.stacking import AdapterStack
from composer.widening import in_float32
from tests.composer.tiny import ATTENTION, T5_ATTENTION, make_adapter

IDS = torch.tensor([[5, 9, 40, 33, 2], [7, 7, 60, 1, 100]])


def logits_of(base: LoadedBase) -> torch.Tensor:
    modules = T5_ATTENTION if base.is_seq2seq else ATTENTION
    adapters = [make_adapter(base, str(seed), seed=seed, modules=modules) for seed in (1, 2)]
    inputs = {"decoder_input_ids": IDS} if base.is_seq2seq else {}
    with (
        torch.inference_mode(),
        AdapterStack(base, adapters) as stack,
        stack.applied(torch.tensor([[0.5, -0.2]] * 2)),
    ):
        return base.model(input_ids=IDS, use_cache=False, **inputs).logits


@pytest.mark.parametrize("name", ["causal", "seq2seq"])
def test_it_works(name: str, request: pytest.FixtureRequest) -> None:
    """The same as a model of the same weights that is float32 throughout."""
    folder: Path = request.getfixturevalue(f"{name}_folder")
    source = BaseModelSource("folder", str(folder))
    narrow = load_base(source, dtype="bfloat16", device="cpu")
    wide = load_base(source, dtype="float32", device="cpu")
    wide.model.load_state_dict(narrow.model.state_dict())
    with in_float32(narrow) as exact:
        assert exact.dtype == torch.float32
        found = logits_of(exact)
    assert found.dtype == torch.float32
    assert torch.allclose(found, logits_of(wide), atol=1e-4)


def test_the_base_is_as_before(causal_folder: Path) -> None:
    base = load_base(BaseModelSource("folder", str(causal_folder)), dtype="bfloat16", device="cpu")
    before = logits_of(base)
    names = list(base.model.state_dict())
    with in_float32(base) as exact:
        logits_of(exact)
        with torch.inference_mode(), pytest.raises(IndexError):
            base.model(input_ids=torch.tensor([[10_000]]))
    assert list(base.model.state_dict()) == names
    assert {item.dtype for item in base.model.parameters()} == {torch.bfloat16}
    assert torch.equal(logits_of(base), before)
