"""What plain peft writes must pass, load again from the rebuilt config, and answer the same."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.pytorch_utils import Conv1D

from composer.errors import InvalidAdapter
from composer.inspection import AdapterSummary, inspect_adapter
from composer.pickle_reader import convert_pickle

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )


def t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    return T5ForConditionalGeneration(
        T5Config(vocab_size=40, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    )


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_positions=32, n_embd=32, n_layer=2, n_head=4)
    )


def table_of(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    table = {}
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            table[path] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            table[path] = (module.nx, module.nf)
    return table


def answers(model: Any) -> torch.Tensor:
    tokens = torch.arange(10)[None]
    seq2seq = model.get_base_model().config.is_encoder_decoder
    extra = {"decoder_input_ids": tokens} if seq2seq else {}
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=tokens, **extra).logits
    return logits


def saved(folder: Path, make: Any, settings: dict[str, Any], **options: Any) -> torch.Tensor:
    """Write an adapter with random matrices and return its answers."""
    options = {"safe_serialization": True} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(make(), LoraConfig(**({"init_lora_weights": False} | settings)))
        model.save_pretrained(str(folder), **options)
    return answers(model)


def reloaded(folder: Path, make: Any, summary: AdapterSummary) -> torch.Tensor:
    (folder / CONFIG).write_text(json.dumps(summary.config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return answers(PeftModel.from_pretrained(make(), str(folder)))


LLAMA: dict[str, dict[str, Any]] = {
    "default targets": {"r": 4, "task_type": "CAUSAL_LM"},
    "rslora": {"r": 4, "use_rslora": True, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"},
    "regex": {
        "r": 2,
        "target_modules": r".*\.layers\.1\..*(q|down)_proj",
        "task_type": "CAUSAL_LM",
    },
    "all-linear": {"r": 3, "target_modules": "all-linear", "task_type": "CAUSAL_LM"},
    "rank and alpha by module": {
        "r": 4,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "k_proj", "down_proj"],
        "rank_pattern": {"down_proj": 8, r"^model.layers.0.self_attn.q_proj": 2},
        "alpha_pattern": {r".*\.1\..*k_proj": 5, "layers.0.self_attn.q_proj": 7},
        "task_type": "CAUSAL_LM",
    },
    "one layer": {
        "target_modules": ["v_proj", "o_proj"],
        "layers_to_transform": [1],
        "layers_pattern": "layers",
        "task_type": "CAUSAL_LM",
    },
    "excluded": {
        "target_modules": "all-linear",
        "exclude_modules": r".*\.0\..*",
        "task_type": "CAUSAL_LM",
    },
    "output head": {"target_modules": ["lm_head", "q_proj"], "task_type": "CAUSAL_LM"},
    "no task type": {"target_modules": ["q_proj"]},
    "names that are nowhere": {
        "target_modules": ["q_proj", "query_key_value"],
        "task_type": "CAUSAL_LM",
    },
    "gaussian": {
        "init_lora_weights": "gaussian",
        "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM",
    },
    "untrained": {
        "init_lora_weights": True,
        "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM",
    },
    "dropout": {"lora_dropout": 0.1, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"},
}


@pytest.mark.parametrize("name", LLAMA)
def test_it_works(tmp_path: Path, name: str):
    # By default peft stores the base's own weights beside a LoRA of the output head.
    expected = saved(tmp_path, llama, LLAMA[name], save_embedding_layers=False)

    summary = inspect_adapter(tmp_path, table_of(llama()), base_name="tiny/llama")

    assert summary.task_type == "CAUSAL_LM"
    assert torch.equal(reloaded(tmp_path, llama, summary), expected)
    assert inspect_adapter(tmp_path, table_of(llama()), base_name="tiny/llama") == summary


@pytest.mark.parametrize("targets", [None, ["q", "v"], "all-linear", r"decoder\..*\.(q|wo)"])
def test_seq2seq_adapters_pass(tmp_path: Path, targets: Any):
    settings = {"r": 4, "target_modules": targets, "task_type": "SEQ_2_SEQ_LM"}
    expected = saved(tmp_path, t5, settings)

    summary = inspect_adapter(tmp_path, table_of(t5()))

    assert summary.task_type == "SEQ_2_SEQ_LM"
    assert torch.equal(reloaded(tmp_path, t5, summary), expected)


def test_adapters_of_transposed_layers_pass(tmp_path: Path):
    settings = {"target_modules": ["c_attn"], "fan_in_fan_out": True, "task_type": "CAUSAL_LM"}
    expected = saved(tmp_path, gpt2, settings)

    summary = inspect_adapter(tmp_path, table_of(gpt2()))

    assert summary.config["fan_in_fan_out"] is True
    assert torch.equal(reloaded(tmp_path, gpt2, summary), expected)


def test_a_pickle_that_peft_wrote_passes_when_converted(tmp_path: Path):
    expected = saved(tmp_path, llama, LLAMA["rslora"], safe_serialization=False)

    convert_pickle(tmp_path / "adapter_model.bin", tmp_path / WEIGHTS)

    summary = inspect_adapter(tmp_path, table_of(llama()))
    assert torch.equal(reloaded(tmp_path, llama, summary), expected)


def test_untrained_matrices_are_reported(tmp_path: Path):
    saved(tmp_path, llama, LLAMA["untrained"])

    summary = inspect_adapter(tmp_path, table_of(llama()))

    assert len(summary.zero_modules) == len(summary.modules) == 2


# Keys as older releases of peft write them, at their defaults.
OLD_CONFIGS: dict[str, dict[str, Any]] = {
    "0.2": {"enable_lora": None, "merge_weights": False, "fan_in_fan_out": False},
    "0.3": {"init_lora_weights": True, "lora_dropout": 0.05},
    "0.4": {
        "auto_mapping": None,
        "revision": None,
        "layers_pattern": None,
        "layers_to_transform": None,
    },
    "0.7": {
        "alpha_pattern": {},
        "rank_pattern": {},
        "loftq_config": {},
        "megatron_config": None,
        "megatron_core": "megatron.core",
    },
    "0.12": {"layer_replication": None, "use_dora": False, "use_rslora": False},
    "0.14": {"eva_config": None, "exclude_modules": None, "lora_bias": False},
    "0.17": {
        "corda_config": None,
        "qalora_group_size": 16,
        "target_parameters": None,
        "trainable_token_indices": None,
        "use_qalora": False,
    },
}


@pytest.mark.parametrize("release", OLD_CONFIGS)
def test_configs_of_older_releases_pass(tmp_path: Path, release: str):
    saved(tmp_path, llama, LLAMA["rslora"] | {"use_rslora": False})
    settings: dict[str, Any] = {
        "base_model_name_or_path": "tiny/llama",
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": 8,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 4,
        "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM",
    }
    for later, keys in OLD_CONFIGS.items():
        settings |= keys
        if later == release:
            break
    (tmp_path / CONFIG).write_text(json.dumps(settings))

    assert inspect_adapter(tmp_path, table_of(llama())).modules.values()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"lora_bias": True}, "lora_bias"),
        ({"target_modules": ["embed_tokens"]}, "tensors"),
        ({"target_modules": ["lm_head"]}, "tensors"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
    ],
)
def test_settings_that_are_no_plain_lora_are_refused(
    tmp_path: Path, changes: dict[str, Any], field: str
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(
            llama(),
            LoraConfig(**({"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | changes)),
        )
        model.save_pretrained(str(tmp_path))

    with pytest.raises(InvalidAdapter) as caught:
        inspect_adapter(tmp_path, table_of(llama()))

    assert field in {problem.field for problem in caught.value.problems}
