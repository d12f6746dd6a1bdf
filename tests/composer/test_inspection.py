# ruff: noqa: E501 - the corpus reads as a table, one case a line
from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from composer.errors import InvalidAdapter
from composer.inspection import AdapterSummary, Limits, inspect_adapter
from tests.composer.adapter_files import (
    ATTENTION,
    BASE_NAME,
    TABLE,
    config,
    lora_shapes,
    safetensors_bytes,
    write_adapter,
)

PEFT = 'Save the adapter again with peft: model.save_pretrained("folder").'
BOTH = 'Save the adapter with peft, model.save_pretrained("folder"), and give both files.'
OTHER_BASE = "Choose the base this adapter was trained on."
CONVERT = 'Convert it to a plain LoRA with peft: model.save_pretrained("folder", path_initial_model_for_weight_conversion="initial").'
VARIANT = "it is another method than plain LoRA, which cannot be merged"
PLAIN = "Train a plain LoRA without it."

FIRST = "model.layers.0.self_attn.q_proj"


def inspect(folder: Path, table: Any = TABLE, **options: Any) -> AdapterSummary:
    return inspect_adapter(folder, table, base_name=BASE_NAME, **options)


def problems_of(folder: Path, table: Any = TABLE, **options: Any) -> list[str]:
    with pytest.raises(InvalidAdapter) as caught:
        inspect(folder, table, **options)
    return [str(problem) for problem in caught.value.problems]


def test_it_works(tmp_path: Path):
    summary = inspect(write_adapter(tmp_path))

    assert summary.modules == dict.fromkeys(sorted(ATTENTION), 2)
    assert summary.target_modules == ("q_proj", "v_proj")
    assert (summary.rank, summary.alpha, summary.dtype) == (2, 4, "F16")
    assert (summary.tensor_count, summary.parameter_count) == (8, 8 * 16)
    assert summary.weights_size == (tmp_path / "adapter_model.safetensors").stat().st_size
    assert summary.scaling_of(FIRST) == 2.0
    assert summary.zero_modules == ()
    assert summary.config == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE_NAME,
        "revision": None,
        "inference_mode": True,
        "r": 2,
        "lora_alpha": 4,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "fan_in_fan_out": False,
        "bias": "none",
        "init_lora_weights": True,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def test_a_summary_survives_json(tmp_path: Path):
    summary = inspect(write_adapter(tmp_path))

    assert AdapterSummary.from_dict(json.loads(json.dumps(summary.to_dict()))) == summary
    assert AdapterSummary.from_dict(summary.to_dict() | {"of a later version": 1}) == summary


def test_the_rebuilt_config_passes_itself(tmp_path: Path):
    summary = inspect(write_adapter(tmp_path, settings=config(target_modules=".*self_attn.*")))

    again = inspect(write_adapter(tmp_path, settings=summary.config))

    assert again == summary


def test_a_local_path_does_not_reach_the_rebuilt_config(tmp_path: Path):
    folder = write_adapter(tmp_path, settings=config(base_model_name_or_path="/home/me/secret"))

    assert inspect(folder).config["base_model_name_or_path"] == BASE_NAME
    assert inspect_adapter(folder, TABLE).base_model_name_or_path == "/home/me/secret"


def test_without_a_table_the_adapter_is_checked_in_itself(tmp_path: Path):
    elsewhere = {
        "base_model.model.h.0.c_attn.lora_A.weight": (2, 5),
        "base_model.model.h.0.c_attn.lora_B.weight": (7, 2),
    }
    folder = write_adapter(tmp_path, settings=config(target_modules=["c_attn"]), weights=elsewhere)

    summary = inspect(folder, None)

    assert summary.config["target_modules"] == ["c_attn"]
    folder = write_adapter(tmp_path, settings=config(target_modules=".*attn"), weights=elsewhere)
    assert inspect(folder, None).config["target_modules"] == ["h.0.c_attn"]


# ---- the config: what is accepted ----------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_mapping": None, "megatron_core": "megatron.core", "qalora_group_size": 16},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"modules_to_save": None},
        {"modules_to_save": []},
        {"loftq_config": {}},
        {"runtime_config": {"ephemeral_gpu_offload": False}},
        {"layers_pattern": "layers", "layers_to_transform": [0, 1]},
        {"enable_lora": None, "merge_weights": False},
        {"lora_alpha": 4.0, "lora_dropout": 0, "peft_version": "0.21.2", "revision": "main"},
        {"target_modules": ["q_proj", "v_proj", "query_key_value"]},
        {"a_later_peft_writes": None, "and_this": False, "and_that": {}},
        {"base_model_name_or_path": None},
        {"inference_mode": False},
    ],
)
def test_harmless_settings_are_accepted_and_dropped(tmp_path: Path, changes: dict[str, Any]):
    plain = inspect(write_adapter(tmp_path / "plain")).config

    rebuilt = inspect(write_adapter(tmp_path / "other", settings=config(**changes))).config

    assert rebuilt | {"peft_version": "", "revision": ""} == plain | {
        "peft_version": "",
        "revision": "",
    }


@pytest.mark.parametrize(
    ("model_class", "library", "task_type"),
    [
        ("LlamaForCausalLM", "transformers.models.llama.modeling_llama", "CAUSAL_LM"),
        ("T5ForConditionalGeneration", "transformers.models.t5.modeling_t5", "SEQ_2_SEQ_LM"),
        ("BertModel", "transformers.models.bert.modeling_bert", None),
    ],
)
def test_the_task_is_told_from_the_class_that_peft_notes(
    tmp_path: Path, model_class: str, library: str, task_type: str | None
):
    mapping = {"base_model_class": model_class, "parent_library": library}
    settings = config(task_type=None, auto_mapping=mapping)

    summary = inspect(write_adapter(tmp_path, settings=settings))

    assert summary.task_type == task_type
    assert "auto_mapping" not in summary.config


@pytest.mark.parametrize(
    ("changes", "modules"),
    [
        ({"target_modules": r".*\.self_attn\.(q|v)_proj"}, ATTENTION),
        ({"target_modules": r"(?:.*?(?:language|layers).*?(?:self_attn|attn).*?(?:q_proj|v_proj).*?)"}, ATTENTION),
        ({"target_modules": "all-linear"}, tuple(path for path in TABLE if path != "lm_head")),
        ({"target_modules": "ALL-LINEAR", "exclude_modules": ["mlp.up_proj", "down_proj"]}, ATTENTION),
        ({"target_modules": ["q_proj", "v_proj", "up_proj"], "exclude_modules": r".*\.mlp\..*"}, ATTENTION),
        ({"layers_to_transform": 1}, ATTENTION[2:]),
        ({"layers_to_transform": [1], "layers_pattern": "layers"}, ATTENTION[2:]),
        ({"layers_to_transform": [1], "layers_pattern": ["h", "layers"]}, ATTENTION[2:]),
        ({"target_modules": [FIRST]}, (FIRST,)),
        ({"target_modules": ["layers.0.self_attn.q_proj", "lm_head"]}, (FIRST, "lm_head")),
    ],
)  # fmt: skip
def test_patterns_are_expanded_to_names(
    tmp_path: Path, changes: dict[str, Any], modules: tuple[str, ...]
):
    folder = write_adapter(tmp_path, settings=config(**changes), weights=lora_shapes(modules))

    summary = inspect(folder)

    assert set(summary.modules) == set(modules)
    for name in summary.config["target_modules"]:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz_.0123456789")
    again = inspect(write_adapter(tmp_path, settings=summary.config, weights=lora_shapes(modules)))
    assert again == summary
    assert inspect(folder, None).modules == summary.modules


def test_ranks_and_alphas_by_module_are_honoured(tmp_path: Path):
    weights = lora_shapes(ATTENTION[:1], rank=4) | lora_shapes(ATTENTION[1:])
    settings = config(
        rank_pattern={f"^{FIRST}": 4, "up_proj": 7},
        alpha_pattern={r".*\.1\.self_attn\..*": 9, "v_proj": 6},
    )

    summary = inspect(write_adapter(tmp_path, settings=settings, weights=weights))

    assert summary.rank == 4
    assert summary.rank_pattern == {FIRST: 4}
    assert [summary.alpha_of(path) for path in ATTENTION] == [4, 6, 9, 9]
    assert summary.scaling_of(FIRST) == 1.0
    again = inspect(write_adapter(tmp_path, settings=summary.config, weights=weights))
    assert again == summary


def test_one_value_for_a_name_is_written_once(tmp_path: Path):
    settings = config(r=8, rank_pattern={".*": 2}, use_rslora=True)

    summary = inspect(write_adapter(tmp_path, settings=settings))

    assert summary.rank_pattern == {"q_proj": 2, "v_proj": 2}
    assert summary.scaling_of(FIRST) == pytest.approx(4 / 2**0.5)


def test_a_path_that_ends_like_another_keeps_its_own_rank(tmp_path: Path):
    table = {"a.x": (8, 8), "b.a.x": (8, 8), "c.x": (8, 8)}
    weights = lora_shapes(("a.x",), rank=4, sizes=(8, 8)) | lora_shapes(
        ("b.a.x", "c.x"), sizes=(8, 8)
    )
    settings = config(target_modules=["x"], rank_pattern={"^a.x": 4})

    summary = inspect(write_adapter(tmp_path, settings=settings, weights=weights), table)

    assert list(summary.rank_pattern.items()) == [("b.a.x", 2), ("a.x", 4)]
    assert (
        inspect(write_adapter(tmp_path, settings=summary.config, weights=weights), table) == summary
    )


def test_a_hostile_pattern_takes_linear_time(tmp_path: Path):
    table = {f"model.layers.{layer}.{'a' * 60}": (8, 8) for layer in range(200)}
    folder = write_adapter(
        tmp_path,
        settings=config(target_modules="(.*a*)*b", rank_pattern={"(a+)+b": 3}),
        weights=lora_shapes(tuple(table), sizes=(8, 8)),
    )
    start = time.process_time()

    problems = problems_of(folder, table)

    assert time.process_time() - start < 2
    assert problems == [
        f'adapter_config.json, target_modules: The weights file has tensors for 200 modules (the first is "model.layers.0.{"a" * 60}"), which target_modules leaves out. Add the names to target_modules, or save the adapter again.'
    ]


# ---- the config: what is refused -----------------------------------------------------------------


RAW: list[tuple[str, bytes, str]] = [
    ("empty", b"", "The file is not valid JSON: Expecting value at line 1, column 1."),
    ("list", b"[]", "The file must hold one JSON object."),
    ("bom", b"\xef\xbb\xbf{}", "The file is not valid JSON: it starts with a byte order mark."),
    ("utf-16", "{}".encode("utf-16"), "The file is not valid JSON: byte 0 is not UTF-8."),
    ("duplicate", b'{"r": 4, "r": 8}', 'The file is not valid JSON: the key "r" appears twice.'),
    ("nan", b'{"lora_alpha": NaN}', "The file is not valid JSON: NaN is not a JSON number."),
    ("deep", b'{"a":' * 1000, "The file is not valid JSON: it is nested deeper than 32 levels."),
    ("long number", b'{"r": 1' + b"0" * 50 + b"}", "The file is not valid JSON: the number 10000000000000000000... has 51 digits."),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "message"), [case[1:] for case in RAW], ids=[c[0] for c in RAW])
def test_it_refuses_what_is_no_json_object(tmp_path: Path, raw: bytes, message: str):
    assert problems_of(write_adapter(tmp_path, settings=raw)) == [
        f"adapter_config.json: {message} {PEFT}"
    ]


VALUES: list[tuple[str, Any, str]] = [
    ("peft_type", "IA3", 'The value is "IA3"; only "LORA" adapters are supported. Train the adapter with peft.LoraConfig.'),
    ("task_type", "SEQ_CLS", 'The value is "SEQ_CLS"; supported are "CAUSAL_LM" and "SEQ_2_SEQ_LM". Only adapters of models that generate text can be composed.'),
    ("task_type", ["CAUSAL_LM"], 'The value is ["CAUSAL_LM"]; supported are "CAUSAL_LM" and "SEQ_2_SEQ_LM". Only adapters of models that generate text can be composed.'),
    ("r", 0, "The rank is 0; it must be a whole number from 1 to 256. Train the adapter with a rank in this range."),
    ("r", 257, "The rank is 257; it must be a whole number from 1 to 256. Train the adapter with a rank in this range."),
    ("r", True, "The rank is true; it must be a whole number from 1 to 256. Train the adapter with a rank in this range."),
    ("r", "4", 'The rank is "4"; it must be a whole number from 1 to 256. Train the adapter with a rank in this range.'),
    ("r", 4.0, "The rank is 4.0; it must be a whole number from 1 to 256. Train the adapter with a rank in this range."),
    ("lora_alpha", 0, "The alpha is 0; it must be a number above 0 and at most 65536. Train the adapter with an alpha in this range."),
    ("lora_alpha", 70000, "The alpha is 70000; it must be a number above 0 and at most 65536. Train the adapter with an alpha in this range."),
    ("lora_alpha", None, "The alpha is null; it must be a number above 0 and at most 65536. Train the adapter with an alpha in this range."),
    ("lora_dropout", 2, "The dropout is 2; it must be a number from 0 to 1. Set it to 0.0: it has no effect once the adapter is trained."),
    ("use_rslora", 1, f"The value is 1; it must be true or false. {PEFT}"),
    ("fan_in_fan_out", None, f"The value is null; it must be true or false. {PEFT}"),
    ("revision", "a\nb", f"The value must be a text of at most 256 printable characters or null. {PEFT}"),
    ("base_model_name_or_path", 7, f"The value must be a text of at most 256 printable characters or null. {PEFT}"),
    ("target_modules", None, 'The adapter names no module that it changes. List the modules, for example ["q_proj", "v_proj"].'),
    ("target_modules", [], 'The adapter names no module that it changes. List the modules, for example ["q_proj", "v_proj"].'),
    ("target_modules", {"q": 1}, f'The value is {{"q": 1}}; it must be a list of names or a pattern. {PEFT}'),
    ("target_modules", ["q_proj", ".*"], 'The entry ".*" is not the name of a module; names have letters, digits, dots and underscores only. Write the names of the modules, without patterns.'),
    ("target_modules", [1], "The entry 1 is not the name of a module; names have letters, digits, dots and underscores only. Write the names of the modules, without patterns."),
    ("target_modules", "x" * 1025, "The pattern has 1025 characters; the limit is 1024. Write the module names as a list."),
    ("target_modules", "(?=a).*", 'The pattern "(?=a).*" is not valid, or needs look-around or back references, which can take for ever to match. Write the module names as a list.'),
    ("target_modules", "(", 'The pattern "(" is not valid, or needs look-around or back references, which can take for ever to match. Write the module names as a list.'),
    ("target_modules", [f"m{number}" for number in range(65)], 'The list has 65 names; the limit is 64. Write a name once for all layers, for example "q_proj".'),
    ("exclude_modules", "(a)\\1", 'The pattern "(a)\\\\1" is not valid, or needs look-around or back references, which can take for ever to match. Write the module names as a list.'),
    ("layers_to_transform", -1, f"The value is -1; it must be layer numbers from 0 upwards. {PEFT}"),
    ("layers_to_transform", ["0"], f'The value is ["0"]; it must be layer numbers from 0 upwards. {PEFT}'),
    ("layers_pattern", "(h|layers)", 'The entry "(h|layers)" is not the name of a module; names have letters, digits, dots and underscores only. Write the names of the modules, without patterns.'),
    ("rank_pattern", [], f"The value is []; it must be an object of module names and numbers. {PEFT}"),
    ("rank_pattern", {"q_proj": 0}, "The rank is 0; it must be a whole number from 1 to 256. Train the adapter with a rank in this range."),
    ("rank_pattern", {"": 2}, f'The key "" is not the name of a module. {PEFT}'),
    ("rank_pattern", {f"m{number}": 2 for number in range(513)}, "There are 513 entries; the limit is 512. Write a name once for all layers, for example q_proj."),
    ("alpha_pattern", {"(?<!a)q": 2}, 'The pattern "(?<!a)q" is not valid, or needs look-around or back references, which can take for ever to match. Use module names as keys.'),
    ("auto_mapping", {"base_model_class": "system", "parent_library": "os"}, 'The value {"base_model_class": "system", "parent_library": "os"} names code to import. Set "auto_mapping" to null and "task_type" to "CAUSAL_LM" or "SEQ_2_SEQ_LM".'),
    ("auto_mapping", {"base_model_class": "LlamaForCausalLM", "parent_library": 1}, 'The value {"base_model_class": "LlamaForCausalLM", "parent_library...} names code to import. Set "auto_mapping" to null and "task_type" to "CAUSAL_LM" or "SEQ_2_SEQ_LM".'),
    ("auto_mapping", "os", 'The value "os" names code to import. Set "auto_mapping" to null and "task_type" to "CAUSAL_LM" or "SEQ_2_SEQ_LM".'),
    ("bias", "all", 'The value "all" is not supported: it changes biases of the base. Train with bias="none".'),
    ("modules_to_save", ["lm_head"], 'The value ["lm_head"] is not supported: it stores whole layers of the base. Train without modules_to_save.'),
    ("use_dora", True, "The value true is not supported: DoRA adds magnitude vectors. Train with use_dora=False."),
    ("use_dora", 0, "The value 0 is not supported: DoRA adds magnitude vectors. Train with use_dora=False."),
    ("lora_bias", True, "The value true is not supported: it adds a bias to lora_B. Train with lora_bias=False."),
    ("megatron_core", "os", 'The value "os" is not supported: it names code to import. Set it to "megatron.core" or null.'),
    ("megatron_config", {"a": 1}, 'The value {"a": 1} is not supported: it configures Megatron layers. Set it to null.'),
    ("layer_replication", [[0, 2]], f"The value [[0, 2]] is not supported: it changes the layers of the base. {PLAIN}"),
    ("loftq_config", {"loftq_bits": 4}, f'The value {{"loftq_bits": 4}} is not supported: it replaces the weights of the base. {CONVERT}'),
    ("corda_config", {"cache_file": "/etc/passwd"}, f'The value {{"cache_file": "/etc/passwd"}} is not supported: it opens files by path and changes the base. {CONVERT}'),
    ("alora_invocation_tokens", [1], f"The value [1] is not supported: {VARIANT}. {PLAIN}"),
    ("trainable_token_indices", [1], f"The value [1] is not supported: it changes token embeddings. {PLAIN}"),
    ("target_parameters", ["experts"], f'The value ["experts"] is not supported: it changes parameters outside linear layers. {PLAIN}'),
    ("qalora_group_size", 32, f"The value 32 is not supported: {VARIANT}. Set it to 16, which is its default."),
    ("init_lora_weights", "pissa_niter_4", f'The value "pissa_niter_4" is not supported: it changes the weights of the base, so that the adapter alone is not complete. {CONVERT}'),
    ("init_lora_weights", "eva", 'The value "eva" is not supported: it runs a decomposition when the adapter is loaded. Set it to true: the trained weights stay the same; remove "eva_config" as well.'),
    ("custom_code", "import os", 'The key is unknown and has the value "import os". Delete the key if the adapter is a plain LoRA; other variants are not supported.'),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message"), VALUES)
def test_it_refuses_by_name(tmp_path: Path, key: str, value: Any, message: str):
    problems = problems_of(write_adapter(tmp_path, settings=config(**{key: value})))

    assert problems[0] == f"adapter_config.json, {key}: {message}"
    assert len(problems) == 1


def test_what_is_missing_is_told(tmp_path: Path):
    assert problems_of(write_adapter(tmp_path, settings={"task_type": "CAUSAL_LM"})) == [
        f"adapter_config.json, {key}: The key is missing. {PEFT}"
        for key in ("peft_type", "r", "lora_alpha", "target_modules")
    ]


def test_layer_numbers_do_not_go_with_a_pattern(tmp_path: Path):
    settings = config(target_modules=".*_proj", layers_to_transform=[0])

    assert problems_of(write_adapter(tmp_path, settings=settings))[0] == (
        "adapter_config.json, layers_to_transform: The value cannot be combined with a pattern in target_modules. Put the layer numbers into the pattern, or write target_modules as a list."
    )


def test_a_long_config_is_not_read(tmp_path: Path):
    folder = write_adapter(tmp_path, settings=b" " * 65537)

    assert problems_of(folder) == [
        "adapter_config.json: The file has 65537 bytes; the limit is 65536. Save it with peft's save_pretrained."
    ]


def test_hostile_texts_are_quoted_in_messages(tmp_path: Path):
    settings = config(**{"\x1b[31m\n": 1, "a" * 200: 1})

    for problem in problems_of(write_adapter(tmp_path, settings=settings)):
        assert problem.isprintable()
        assert len(problem) < 300


# ---- the tensors ---------------------------------------------------------------------------------


def test_missing_files_are_told_together(tmp_path: Path):
    assert problems_of(tmp_path) == [
        f"adapter_config.json: The file is missing. {BOTH}",
        f"adapter_model.safetensors: The file is missing. {BOTH}",
    ]


def test_a_pickle_must_be_converted_first(tmp_path: Path):
    folder = write_adapter(tmp_path)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")

    assert problems_of(folder) == [
        "adapter_model.safetensors: The file is missing; there is only adapter_model.bin, a pickle. Convert it with composer.convert_pickle, or save with peft to get adapter_model.safetensors."
    ]


def test_a_folder_or_pipe_in_place_of_a_file_is_missing(tmp_path: Path):
    (tmp_path / "adapter_config.json").mkdir()

    assert problems_of(tmp_path)[0] == f"adapter_config.json: The file is missing. {BOTH}"


def test_large_weights_are_not_read(tmp_path: Path):
    folder = write_adapter(tmp_path)
    size = (folder / "adapter_model.safetensors").stat().st_size

    assert problems_of(folder, limits=Limits(weights_bytes=10)) == [
        f"adapter_model.safetensors: The file has {size} bytes; the limit is 10. Save in float16, or train with a smaller rank or fewer modules."
    ]


def without(shapes: dict[str, tuple[int, ...]], *endings: str) -> dict[str, tuple[int, ...]]:
    return {key: shape for key, shape in shapes.items() if not key.endswith(endings)}


WHOLE = lora_shapes()
DEEP = lora_shapes(
    (*ATTENTION, "model.layers.2.self_attn.q_proj", "model.layers.7.self_attn.q_proj"), sizes=(8, 8)
)
STRANGE = lora_shapes((*ATTENTION, "transformer.h.0.attn", "transformer.h.1.attn"), sizes=(8, 8))

TENSORS: list[tuple[str, Any, list[str]]] = [
    ("no lora_B", without(WHOLE, "0.self_attn.q_proj.lora_B.weight"), [
        f'tensors: The module "{FIRST}" has lora_A but no lora_B. {PEFT}']),
    ("no lora_A", without(WHOLE, "q_proj.lora_A.weight"), [
        f'tensors: 2 modules (the first is "{FIRST}") have lora_B but no lora_A. {PEFT}']),
    ("ranks of a pair", WHOLE | {f"base_model.model.{FIRST}.lora_B.weight": (8, 3)}, [
        f'tensors: The module "{FIRST}": lora_A has rank 2, lora_B has rank 3. {PEFT}']),
    ("wide", lora_shapes(sizes=(12, 12)), [
        f'shape: 8 of 8 tensors have width 12; {BASE_NAME} has 8 there (the first is "base_model.model.{FIRST}.lora_A.weight"). {OTHER_BASE}']),
    ("one is wide", WHOLE | {f"base_model.model.{FIRST}.lora_B.weight": (16, 2)}, [
        f'shape: 1 of 8 tensors has width 16; {BASE_NAME} has 8 there (the first is "base_model.model.{FIRST}.lora_B.weight"). {OTHER_BASE}']),
    ("deep", DEEP, [
        f'tensors: 2 modules (the first is "model.layers.2.self_attn.q_proj") belong to layers up to 7; {BASE_NAME} has 2 layers, numbered from 0. {OTHER_BASE}']),
    ("strange modules", STRANGE, [
        f"tensors: 2 of 6 modules are not linear layers of {BASE_NAME}: transformer.h.N.attn (2). {OTHER_BASE}"]),
    ("prefix missing inside", WHOLE | lora_shapes(("layers.0.mlp.up_proj",), sizes=(8, 16)), [
        f"tensors: 1 of 5 modules are not linear layers of {BASE_NAME}: layers.N.mlp.up_proj (1). The paths lack or repeat a prefix: save the adapter with peft's save_pretrained."]),
    ("dora", WHOLE | {f"base_model.model.{FIRST}.lora_magnitude_vector": (1, 8)}, [
        f'tensors: The tensor "base_model.model.{FIRST}.lora_magnitude_vector" is not supported: DoRA\'s magnitude vectors cannot be merged. Train with use_dora=False.']),
    ("embedding", WHOLE | {"base_model.model.model.embed_tokens.lora_embedding_A": (2, 32), "base_model.model.model.embed_tokens.lora_embedding_B": (8, 2)}, [
        'tensors: 2 tensors (the first is "base_model.model.model.embed_tokens.lora_embedding_A") are not supported: only linear layers can be adapted, not embeddings. Leave embeddings out of target_modules.']),
    ("adapter name", WHOLE | {f"base_model.model.{FIRST}.lora_A.default.weight": (2, 8)}, [
        f'tensors: The tensor "base_model.model.{FIRST}.lora_A.default.weight" is not supported: the name of the adapter is still part of the tensor name. Save with peft\'s save_pretrained, not with torch.save of the state_dict.']),
    ("saved layer", WHOLE | {"base_model.model.lm_head.weight": (32, 8)}, [
        'tensors: The tensor "base_model.model.lm_head.weight" is not supported: weights of the base are not part of a LoRA. Save the adapter alone: model.save_pretrained("folder", save_embedding_layers=False).']),
    ("no prefix", WHOLE | {f"{FIRST}.lora_A.weight": (2, 8)}, [
        f'tensors: The tensor "{FIRST}.lora_A.weight" is not supported: the prefix "base_model.model." is missing. Save with peft\'s save_pretrained, which adds it.']),
    ("image model", WHOLE | {"lora_unet_down.lora_down.weight": (2, 8)}, [
        'tensors: The tensor "lora_unet_down.lora_down.weight" is not supported: this is the form of image models. Only adapters of language models can be composed.']),
    ("something else", WHOLE | {"x": (2, 8)}, [
        f'tensors: The tensor "x" is not supported: this is not a LoRA matrix of peft. {PEFT}']),
]  # fmt: skip


@pytest.mark.parametrize(
    ("weights", "problems"), [case[1:] for case in TENSORS], ids=[c[0] for c in TENSORS]
)
def test_it_refuses_tensors(tmp_path: Path, weights: Any, problems: list[str]):
    found = problems_of(write_adapter(tmp_path, weights=weights))

    assert found == [f"adapter_model.safetensors, {problem}" for problem in problems]


def test_one_vector_is_explained_by_its_feature_and_its_shape(tmp_path: Path):
    weights = WHOLE | {f"base_model.model.{FIRST}.lora_magnitude_vector": (8,)}

    problems = problems_of(write_adapter(tmp_path, settings=config(use_dora=True), weights=weights))

    assert [problem.partition(":")[0] for problem in problems] == [
        "adapter_config.json, use_dora",
        "adapter_model.safetensors, tensors",
        "adapter_model.safetensors, shape",
    ]


def test_a_rank_above_the_limit_is_refused(tmp_path: Path):
    weights = lora_shapes((FIRST,), rank=300)
    settings = config(target_modules=[FIRST])

    assert problems_of(write_adapter(tmp_path, settings=settings, weights=weights)) == [
        f'adapter_model.safetensors, tensors: The module "{FIRST}" has rank 300; the limit is 256. Train the adapter with a smaller rank.',
        f'adapter_config.json, r: The value for the module "{FIRST}" is 2, but the tensors have rank 300. {PEFT}',
    ]


def test_ranks_of_config_and_tensors_must_agree(tmp_path: Path):
    assert problems_of(write_adapter(tmp_path, settings=config(r=8))) == [
        f'adapter_config.json, r: The value for 4 modules (the first is "{FIRST}") is 8, but the tensors have rank 2. {PEFT}'
    ]
    assert problems_of(write_adapter(tmp_path, settings=config(rank_pattern={"q_proj": 5}))) == [
        f'adapter_config.json, rank_pattern: The value for 2 modules (the first is "{FIRST}") is 5, but the tensors have rank 2. {PEFT}'
    ]


def test_targets_and_tensors_must_agree(tmp_path: Path):
    more = config(target_modules=["q_proj", "v_proj", "up_proj"])
    fewer = config(target_modules=["v_proj", "layers.1.self_attn.q_proj"])

    assert problems_of(write_adapter(tmp_path, settings=more)) == [
        'adapter_config.json, target_modules: target_modules names 2 modules (the first is "model.layers.0.mlp.up_proj"), but the weights file has no tensors there. Remove the names from target_modules, or save the adapter again.'
    ]
    assert problems_of(write_adapter(tmp_path, settings=fewer)) == [
        f'adapter_config.json, target_modules: The weights file has tensors for the module "{FIRST}", which target_modules leaves out. Add the names to target_modules, or save the adapter again.'
    ]


@pytest.mark.parametrize("number", [b"\x00\x7c", b"\x00\xfc", b"\x01\x7e"])
def test_nan_and_infinity_are_refused(tmp_path: Path, number: bytes):
    data = safetensors_bytes(lora_shapes())[:-2] + number

    assert problems_of(write_adapter(tmp_path, weights=data)) == [
        'adapter_model.safetensors, values: The tensor "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight": there are NaN or infinite values. The training diverged: train again with a lower learning rate, or in bfloat16.'
    ]


def test_modules_of_zeros_are_reported_but_accepted(tmp_path: Path):
    data = safetensors_bytes(lora_shapes())
    zeros = data[:-32] + bytes(32)

    assert inspect(write_adapter(tmp_path, weights=zeros)).zero_modules == (ATTENTION[-1],)


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [("F32", struct.pack("<f", 0.5)), ("BF16", b"\x00\x3f"), ("F16", b"\x00\x38")],
)
def test_the_three_types_are_accepted(tmp_path: Path, dtype: str, fill: bytes):
    data = safetensors_bytes(lora_shapes(), dtype=dtype, fill=fill)

    assert inspect(write_adapter(tmp_path, weights=data)).dtype == dtype


def test_problems_of_both_files_come_together_and_are_limited(tmp_path: Path):
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(1, 70):
        path = f"model.layers.0.mlp.x{number}"
        shapes |= lora_shapes((path,), sizes=(number, number + 100))
    table = {f"model.layers.0.mlp.x{number}": (8, 8) for number in range(1, 70)}
    settings = config(r=0, use_dora=True)

    problems = problems_of(write_adapter(tmp_path, settings=settings, weights=shapes), table)

    assert problems[0].startswith("adapter_config.json, r:")
    assert len(problems) == 51
    assert problems[-1].startswith("There are ")
    assert problems[-1].endswith(" more problems.")


def test_complete_paths_do_not_count_towards_the_limit_of_names(tmp_path: Path):
    table = {
        f"model.layers.{layer}.self_attn.{name}": (8, 8)
        for layer in range(40)
        for name in ("q_proj", "k_proj", "v_proj")
    }
    chosen = tuple(path for path in table if ".3" not in path)
    weights = lora_shapes(chosen, sizes=(8, 8))
    settings = config(target_modules=list(chosen))

    summary = inspect(write_adapter(tmp_path, settings=settings, weights=weights), table)

    assert len(chosen) > 64
    assert (
        inspect(write_adapter(tmp_path, settings=summary.config, weights=weights), table) == summary
    )
