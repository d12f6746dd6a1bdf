"""Tiny bases and adapters, built in a moment: two layers, hidden size 32, one token a byte."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from composer.adapter import LoraAdapter, LoraLayer
from composer.base_model import BaseModelSource, LoadedBase, load_base
from composer.examples import Example

BASE_NAME = "tiny/base"
END = "<end>"
CHAT = (
    "{% for turn in messages %}<{{ turn['role'] }}>{{ turn['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ATTENTION = tuple(f"model.layers.{layer}.self_attn.{n}_proj" for layer in (0, 1) for n in "qv")
T5_ATTENTION = tuple(
    f"{side}.block.{block}.layer.0.SelfAttention.{n}"
    for side in ("encoder", "decoder")
    for block in (0, 1)
    for n in "qv"
)
ROWS = tuple(
    Example(f"Say the colour of it.\nInput: {thing}\nOutput:", colour)
    for thing, colour in (
        ("grass", "green"),
        ("snow", "white"),
        ("coal", "black"),
        ("blood", "red"),
        ("sky", "blue"),
        ("a lemon", "yellow"),
        ("milk", "white"),
        ("ink", "black"),
    )
)


def save_causal(folder: Path, *, chat: bool = True) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.15,
        bos_token_id=256,
        eos_token_id=256,
        pad_token_id=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = tokenizer_of(ends_texts=False)
    if chat:
        tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


def save_seq2seq(folder: Path) -> Path:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=258,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        eos_token_id=256,
        pad_token_id=257,
        decoder_start_token_id=257,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer_of(ends_texts=True).save_pretrained(folder)
    return folder


def tokenizer_of(*, ends_texts: bool) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END, "<pad>"])
    if ends_texts:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {END}", special_tokens=[(END, 256)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token="<pad>" if ends_texts else END
    )


def load_tiny(folder: Path) -> LoadedBase:
    source = BaseModelSource("folder", str(folder), name=BASE_NAME)
    return load_base(source, dtype="float32", device="cpu")


def make_adapter(
    base: LoadedBase,
    name: str = "one",
    *,
    seed: int = 0,
    rank: int = 4,
    ranks: Mapping[str, int] | None = None,
    modules: tuple[str, ...] = ATTENTION,
    scaling: float = 2.0,
    size: float = 0.3,
) -> LoraAdapter:
    random = torch.Generator().manual_seed(seed)
    layers = {}
    for path in modules:
        wide, high = base.module_table[path]
        here = (ranks or {}).get(path, rank)
        layers[path] = LoraLayer(
            torch.randn(here, wide, generator=random) * size,
            torch.randn(high, here, generator=random) * size,
            scaling,
        )
    task = "SEQ_2_SEQ_LM" if base.is_seq2seq else "CAUSAL_LM"
    return LoraAdapter(name, layers, base_name=BASE_NAME, task_type=task)


def max_difference(first: LoraAdapter, second: LoraAdapter) -> float:
    """Compare the updates of two adapters; a missing module counts as zero."""
    worst = 0.0
    for path in {*first.layers, *second.layers}:
        deltas = [item.layers[path].delta() for item in (first, second) if path in item.layers]
        gap = deltas[0] - deltas[1] if len(deltas) > 1 else deltas[0]
        worst = max(worst, float(gap.abs().max()))
    return worst
