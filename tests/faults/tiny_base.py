"""Build a tiny causal model, its tokenizer and four LoRA adapters in a folder.

Run as a process of its own (`python -m tests.faults.tiny_base FOLDER`), because tests that talk to
a site must not load torch themselves. Everything is random but seeded, the same every time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [f"word{number}" for number in range(60)] + [f"answer{number}" for number in range(60)]
ADAPTERS = 4
NAME = "tests/tiny"


def main(folder: Path) -> None:
    """Write base/ and adapter0/ to adapter3/."""
    tokenizer = build_tokenizer()
    base = build_model(len(tokenizer))
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    for number in range(ADAPTERS):
        config = LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules=["q_proj", "v_proj", "down_proj"],
            init_lora_weights=False,
            task_type="CAUSAL_LM",
            base_model_name_or_path=NAME,
        )
        fresh = build_model(len(tokenizer))
        torch.manual_seed(number + 1)  # after the base, which has a seed of its own
        model = get_peft_model(fresh, config)
        model.peft_config["default"].base_model_name_or_path = NAME
        model.save_pretrained(str(folder / f"adapter{number}"))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    vocabulary = {word: place for place, word in enumerate(["<unk>", "<end>", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner, unk_token="<unk>", eos_token="<end>", pad_token="<end>"
    )


def build_model(vocabulary: int) -> LlamaForCausalLM:
    """Two layers, hidden size 32, always the same weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=128,
            eos_token_id=1,
            pad_token_id=1,
            bos_token_id=None,
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
