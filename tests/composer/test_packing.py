"""Rows packed into one sequence: which models do it, and that losses are those of rows alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM as Auto
from transformers import (
    BloomConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from composer.base_model import LoadedBase
from composer.examples import Example
from composer.scoring import Scorer, encode_examples
from composer.scoring.packing import PACK_TOKENS, cut_packs, pack_rows
from composer.stacking import AdapterStack
from tests.composer import tiny
from tests.composer.tiny import ROWS, make_adapter

SIZES = {"vocab_size": 258, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.15}
WIDE = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 8}


def load(folder: Path, config: PretrainedConfig) -> LoadedBase:
    torch.manual_seed(0)
    config.eos_token_id = 256
    Auto.from_config(config).save_pretrained(folder)
    tiny.tokenizer_of(ends_texts=False).save_pretrained(folder)
    return tiny.load_tiny(folder)


def losses(base: LoadedBase, rows: tuple[Example, ...]) -> np.ndarray:
    path = next(path for path in base.module_table if "lm_head" not in path)
    with AdapterStack(base, [make_adapter(base, modules=(path,))]) as stack:
        scorer = Scorer(base, encode_examples(base, rows))
        return scorer.losses(stack, np.array([[0.0], [1.0]]))


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZES, **WIDE),
        Qwen2Config(**SIZES, **WIDE),
        Qwen3Config(**SIZES, **WIDE),
        MistralConfig(**SIZES, **WIDE),
        MixtralConfig(**SIZES, **WIDE, num_local_experts=2),
        GPTNeoXConfig(**SIZES, num_attention_heads=4, intermediate_size=64),
        GPT2Config(vocab_size=258, n_embd=32, n_layer=2, n_head=4, initializer_range=0.15),
    ],
    ids=lambda config: config.model_type,
)
def test_packed_rows_have_the_losses_of_rows_alone(
    tmp_path: Path, config: PretrainedConfig
) -> None:
    base = load(tmp_path, config)
    assert base.packs_rows
    alone = np.stack([losses(base, (row,))[:, 0] for row in ROWS], axis=1)
    assert losses(base, ROWS) == pytest.approx(alone, rel=1e-4)
    assert losses(replace(base, packs_rows=False), ROWS) == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        BloomConfig(vocab_size=258, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.15),
        MambaConfig(**SIZES, state_size=4),
    ],
    ids=lambda config: config.model_type,
)
def test_models_that_cannot_keep_rows_apart_pad_them(
    tmp_path: Path, config: PretrainedConfig
) -> None:
    base = load(tmp_path, config)
    assert not base.packs_rows
    rows = (Example("one", "a"), Example("Two words", "bb"))
    alone = np.stack([losses(base, (row,))[:, 0] for row in rows], axis=1)
    assert losses(base, rows) == pytest.approx(alone, rel=1e-4)


def test_rows_longer_than_a_window_are_padded(tmp_path: Path) -> None:
    base = load(tmp_path, MistralConfig(**SIZES, **WIDE, sliding_window=16))
    assert base.window == 16
    alone = np.stack([losses(base, (row,))[:, 0] for row in ROWS], axis=1)
    assert losses(base, ROWS) == pytest.approx(alone, rel=1e-4)


def test_the_common_beginning_stands_there_once(causal: LoadedBase) -> None:
    rows = encode_examples(causal, ROWS[:3])
    shared = 20
    pack = pack_rows(rows, shared, causal)
    assert pack.ids.shape[1] == shared + sum(item.n_tokens - 1 - shared for item in rows)
    assert pack.mask is not None
    # What the first token of the third row sees: the beginning and itself.
    first = shared + sum(item.n_tokens - 1 - shared for item in rows[:2])
    seen = (pack.mask[0, 0, first] == 0).nonzero().flatten().tolist()
    assert seen == [*range(shared), first]
    assert int(pack.positions[0, first]) == shared


def test_many_rows_are_cut_into_even_packs() -> None:
    lengths = [100] * 20
    packs = list(cut_packs(range(20), lengths, 40))
    assert [i for pack in packs for i in pack] == list(range(20))
    tokens = [40 + 60 * len(pack) for pack in packs]
    assert max(tokens) <= PACK_TOKENS
    assert max(tokens) - min(tokens) <= 60


def test_a_row_longer_than_a_pack_stands_alone() -> None:
    assert list(cut_packs([0, 1, 2], [10, 20, 3000], 0)) == [[0, 1], [2]]
