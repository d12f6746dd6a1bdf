from __future__ import annotations

import inspect
import re

import pytest
import torch
from peft import LoraModel

from composer.base_model import LoadedBase
from composer.commands.arguments import PEFT_COMBINATIONS
from composer.errors import IncompatibleAdapters
from composer.merging import merge_adapters
from composer.peft_merging import merge_with_peft
from tests.composer.tiny import make_adapter, max_difference

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)


def test_it_works(causal: LoadedBase) -> None:
    adapters = [make_adapter(causal, str(rank), seed=rank, rank=rank) for rank in (2, 3)]
    merged = merge_with_peft(causal, adapters, (0.5, 0.25), "cat")
    exact = merge_adapters(adapters, (0.5, 0.25), "concat").adapter
    assert max_difference(merged, exact) < 1e-4


def test_every_combination_of_peft_is_offered() -> None:
    source = inspect.getsource(LoraModel.add_weighted_adapter)
    source += inspect.getsource(LoraModel._check_add_weighted_adapter)
    source += inspect.getsource(LoraModel._svd_generalized_task_arithmetic_weighted_adapter)
    source += inspect.getsource(LoraModel._generalized_task_arithmetic_weighted_adapter)
    known = set(re.findall(r'"((?:linear|cat|svd|ties|dare|magnitude)[a-z_]*)"', source))
    assert set(PEFT_COMBINATIONS) == known


def test_svd_of_full_rank_agrees_with_ours(causal: LoadedBase) -> None:
    adapters = [make_adapter(causal, str(rank), seed=rank, rank=rank) for rank in (2, 3)]
    theirs = merge_with_peft(causal, adapters, (0.5, 0.75), "svd", options={"svd_rank": 5})
    ours = merge_adapters(adapters, (0.5, 0.75), "svd", svd_rank=5).adapter
    assert max_difference(theirs, ours) < 1e-4


@pytest.mark.parametrize("combination", PEFT_COMBINATIONS)
def test_every_combination_leaves_the_base_as_it_was(causal: LoadedBase, combination: str) -> None:
    adapters = [make_adapter(causal, str(seed), seed=seed) for seed in (1, 2)]
    before = {key: value.clone() for key, value in causal.model.state_dict().items()}
    options = {"svd_rank": 3, "density": 0.7}
    merged = merge_with_peft(causal, adapters, (0.6, 0.4), combination, options=options)
    after = causal.model.state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    again = merge_with_peft(causal, adapters, (0.6, 0.4), combination, options=options)
    assert max_difference(merged, again) < 1e-5


def test_what_peft_refuses_is_told(causal: LoadedBase) -> None:
    adapters = [make_adapter(causal, str(rank), rank=rank) for rank in (2, 3)]
    with pytest.raises(IncompatibleAdapters, match="peft cannot combine"):
        merge_with_peft(causal, adapters, (0.5, 0.5), "linear")
