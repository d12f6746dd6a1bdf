"""The T5 models, adapters and rows that the speed benchmarks run on, built with random weights.

Shapes are FLAN-T5's; the values do not matter to a processor. Whatever is measured reads the same
files, in PEFT's own format.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from composer.adapter import LoraAdapter, LoraLayer
from composer.base_model import BaseModelSource, compute_module_table
from composer.examples import Example

VOCABULARY = 32128
PAD, END, UNKNOWN = 0, 1, 2
COMMON: dict[str, Any] = {
    "d_kv": 64,
    "vocab_size": VOCABULARY,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "decoder_start_token_id": PAD,
}
SHAPES: dict[str, dict[str, Any]] = {
    "small": {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6, **COMMON},
    "base": {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12, **COMMON},
}
RANK = 16
ALPHA = 32
TARGETS = ("q", "v")
ROW_TOKENS = (145, 157)
ANSWER_TOKENS = (3, 8)


@dataclass(frozen=True)
class Workload:
    """Where the files are: a base, adapters of it, and rows as `[input, output]`."""

    base: Path
    adapters: tuple[Path, ...]
    examples: tuple[Example, ...]


def build(folder: Path, shape: str, n_adapters: int, n_rows: int = 5) -> Workload:
    """Write a base of this shape, adapters of rank 16 on q and v, and rows of about 150 tokens."""
    base = folder / "base"
    torch.manual_seed(0)
    T5ForConditionalGeneration(T5Config(**SHAPES[shape])).save_pretrained(base)
    _tokenizer().save_pretrained(base)
    table = compute_module_table(BaseModelSource("folder", str(base)))
    adapters = []
    for number in range(n_adapters):
        place = folder / f"adapter_{number}"
        make_adapter(table, number, base_name=str(base)).save(place, table)
        adapters.append(place)
    rows = make_rows(n_rows)
    (folder / "rows.json").write_text(json.dumps([[row.input, row.output] for row in rows]))
    return Workload(base, tuple(adapters), rows)


def read(folder: Path, n_adapters: int | None = None) -> Workload:
    """Find what `build` has written."""
    rows = json.loads((folder / "rows.json").read_text())
    found = sorted(folder.glob("adapter_*"), key=lambda path: int(path.name.split("_")[1]))
    examples = tuple(Example(*row) for row in rows)
    return Workload(folder / "base", tuple(found[:n_adapters]), examples)


def make_adapter(
    table: dict[str, tuple[int, int]], number: int, *, base_name: str = ""
) -> LoraAdapter:
    """Make one adapter with random factors."""
    generator = torch.Generator().manual_seed(1000 + number)
    layers = {}
    for path, (n_in, n_out) in table.items():
        if path.rpartition(".")[2] in TARGETS:
            a = torch.randn(RANK, n_in, generator=generator) * 0.02
            b = torch.randn(n_out, RANK, generator=generator) * 0.02
            layers[path] = LoraLayer(a, b, ALPHA / RANK)
    return LoraAdapter(f"adapter_{number}", layers, base_name, "SEQ_2_SEQ_LM")


def make_rows(n_rows: int) -> tuple[Example, ...]:
    """Make rows of random words, one token a word."""
    words = random.Random(0)

    def text(low: int, high: int) -> str:
        count = words.randint(low, high) - 1  # the end token is one more
        return " ".join(f"w{words.randrange(3, VOCABULARY)}" for _ in range(count))

    return tuple(Example(text(*ROW_TOKENS), text(*ANSWER_TOKENS)) for _ in range(n_rows))


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": PAD, "</s>": END, "<unk>": UNKNOWN}
    vocabulary |= {f"w{i}": i for i in range(3, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        model_max_length=2048,
    )
