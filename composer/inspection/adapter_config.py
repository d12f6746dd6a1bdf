"""Read adapter_config.json: a few allowed keys with exact types, everything else off or refused.

peft writes some forty keys into every file. Those that change nothing at peft's own default are
dropped at that default and refused by name at any other value (`peft_features`); the file that the
site serves is rebuilt from the rest. Patterns are only read here and matched in `patterns`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from composer.errors import Problem
from composer.inspection.peft_features import CONFIG_NAME, examine_feature
from composer.limits import Limits
from composer.strict_json import JSONError, parse_json, shown

TASK_TYPES = ("CAUSAL_LM", "SEQ_2_SEQ_LM")

_SAVE_AGAIN = 'Save the adapter again with peft: model.save_pretrained("folder").'
_LITERAL = re.compile(r"[A-Za-z0-9_.]+")
_MAX_TEXT = 256
_MAX_LAYERS = 10_000

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of a LoRA adapter that the composer understands, as its author wrote them.

    `target_modules` and `exclude_modules` are names, or one pattern as a string.
    """

    task_type: str | None
    base_model_name_or_path: str | None
    revision: str | None
    peft_version: str | None
    rank: int
    alpha: float
    dropout: float
    use_rslora: bool
    fan_in_fan_out: bool
    target_modules: tuple[str, ...] | str
    exclude_modules: tuple[str, ...] | str
    layers_to_transform: tuple[int, ...]
    layers_pattern: tuple[str, ...]
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]


@dataclass
class ConfigReading:
    """A config with everything that is wrong with it; `config` is there only if nothing is."""

    problems: list[Problem] = field(default_factory=list)
    config: AdapterConfig | None = None


def examine_config(data: bytes, limits: Limits) -> ConfigReading:
    """Parse the bytes of an adapter_config.json and collect everything that is wrong with it."""
    reading = ConfigReading()
    try:
        raw = parse_json(data)
    except JSONError as error:
        message = f"The file is not valid JSON: {error}."
        reading.problems.append(Problem(CONFIG_NAME, "", message, _SAVE_AGAIN))
        return reading
    if not isinstance(raw, dict):
        message = "The file must hold one JSON object."
        reading.problems.append(Problem(CONFIG_NAME, "", message, _SAVE_AGAIN))
        return reading
    values: dict[str, Any] = {}
    for key, parse in _FIELDS.items():
        try:
            values[key] = parse(raw[key], limits) if key in raw else _default(key)
        except _Refused as refusal:
            reading.problems.append(Problem(CONFIG_NAME, key, refusal.message, refusal.fix))
    for key, value in raw.items():
        if key not in _FIELDS:
            reading.problems.extend(examine_feature(key, value))
    if not reading.problems:
        reading.config = _build(values)
    return reading


def is_literal(name: str) -> bool:
    """Say whether a name is a plain dotted path, free of any pattern syntax but the dot."""
    return _LITERAL.fullmatch(name) is not None


class _Refused(Exception):
    """A value that cannot be used."""

    def __init__(self, message: str, fix: str = _SAVE_AGAIN) -> None:
        super().__init__(message)
        self.message, self.fix = message, fix


def _build(values: Mapping[str, Any]) -> AdapterConfig:
    task_type = values["task_type"]
    if task_type is None:
        task_type = values["auto_mapping"]
    return AdapterConfig(
        task_type=task_type,
        base_model_name_or_path=values["base_model_name_or_path"],
        revision=values["revision"],
        peft_version=values["peft_version"],
        rank=values["r"],
        alpha=values["lora_alpha"],
        dropout=values["lora_dropout"],
        use_rslora=values["use_rslora"],
        fan_in_fan_out=values["fan_in_fan_out"],
        target_modules=values["target_modules"],
        exclude_modules=values["exclude_modules"],
        layers_to_transform=values["layers_to_transform"],
        layers_pattern=values["layers_pattern"],
        rank_pattern=values["rank_pattern"],
        alpha_pattern=values["alpha_pattern"],
    )


def _default(key: str) -> object:
    if key in _REQUIRED:
        message = "The key is missing."
        raise _Refused(message)
    return _DEFAULTS[key]


def _peft_type(value: object, _: Limits) -> str:
    if value != "LORA":
        message = f'The value is {shown(value)}; only "LORA" adapters are supported.'
        raise _Refused(message, "Train the adapter with peft.LoraConfig.")
    return "LORA"


def _task_type(value: object, _: Limits) -> str | None:
    if value is not None and value not in TASK_TYPES:
        message = f'The value is {shown(value)}; supported are "CAUSAL_LM" and "SEQ_2_SEQ_LM".'
        raise _Refused(message, "Only adapters of models that generate text can be composed.")
    return None if value is None else str(value)


def _auto_mapping(value: object, _: Limits) -> str | None:
    """Drop the class that peft notes for a model without a task type, and tell the task from it.

    The note names a class to import, so nothing but a model class of transformers may pass.
    """
    if value is None:
        return None
    fix = 'Set "auto_mapping" to null and "task_type" to "CAUSAL_LM" or "SEQ_2_SEQ_LM".'
    message = f"The value {shown(value)} names code to import."
    if not isinstance(value, dict) or set(value) != {"base_model_class", "parent_library"}:
        raise _Refused(message, fix)
    model_class, library = value["base_model_class"], value["parent_library"]
    if not isinstance(model_class, str) or not isinstance(library, str):
        raise _Refused(message, fix)
    if not _MODEL_CLASS.fullmatch(model_class) or not _MODEL_LIBRARY.fullmatch(library):
        raise _Refused(message, fix)
    if model_class.endswith("ForCausalLM"):
        return "CAUSAL_LM"
    return "SEQ_2_SEQ_LM" if model_class.endswith("ForConditionalGeneration") else None


def _text(value: object, _: Limits) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
        message = f"The value must be a text of at most {_MAX_TEXT} printable characters or null."
        raise _Refused(message)
    return value or None


def _rank(value: object, limits: Limits) -> int:
    if type(value) is not int or not 1 <= value <= limits.rank:
        message = f"The rank is {shown(value)}; it must be a whole number from 1 to {limits.rank}."
        raise _Refused(message, "Train the adapter with a rank in this range.")
    return value


def _alpha(value: object, limits: Limits) -> float:
    number = _number(value)
    if number is None or not 0 < number <= limits.alpha:
        message = (
            f"The alpha is {shown(value)}; it must be a number above 0 and at most "
            f"{limits.alpha:g}."
        )
        raise _Refused(message, "Train the adapter with an alpha in this range.")
    return number


def _dropout(value: object, _: Limits) -> float:
    number = _number(value)
    if number is None or not 0 <= number <= 1:
        message = f"The dropout is {shown(value)}; it must be a number from 0 to 1."
        raise _Refused(message, "Set it to 0.0: it has no effect once the adapter is trained.")
    return number


def _number(value: object) -> int | float | None:
    if type(value) is int:
        return value
    return value if type(value) is float and math.isfinite(value) else None


def _flag(value: object, _: Limits) -> bool:
    if type(value) is not bool:
        message = f"The value is {shown(value)}; it must be true or false."
        raise _Refused(message)
    return value


def _target_modules(value: object, limits: Limits) -> tuple[str, ...] | str:
    names = _names_or_pattern(value, limits)
    if not names:
        message = "The adapter names no module that it changes."
        raise _Refused(message, 'List the modules, for example ["q_proj", "v_proj"].')
    return names


def _names_or_pattern(value: object, limits: Limits) -> tuple[str, ...] | str:
    if value is None:
        return ()
    if isinstance(value, list):
        return _literal_names(value)
    if not isinstance(value, str) or not value.isprintable():
        message = f"The value is {shown(value)}; it must be a list of names or a pattern."
        raise _Refused(message)
    if len(value) > limits.pattern_length:
        message = f"The pattern has {len(value)} characters; the limit is {limits.pattern_length}."
        raise _Refused(message, "Write the module names as a list.")
    return value


def _literal_names(value: list[object]) -> tuple[str, ...]:
    names = []
    for name in value:
        if not isinstance(name, str) or not is_literal(name) or len(name) > _MAX_TEXT:
            message = (
                f"The entry {shown(name)} is not the name of a module; names have letters, "
                "digits, dots and underscores only."
            )
            raise _Refused(message, "Write the names of the modules, without patterns.")
        names.append(name)
    return tuple(dict.fromkeys(names))


def _layers_pattern(value: object, _: Limits) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    return _literal_names(value if isinstance(value, list) else [value])


def _layers_to_transform(value: object, _: Limits) -> tuple[int, ...]:
    if value is None:
        return ()
    layers = value if isinstance(value, list) else [value]
    if not all(type(layer) is int and 0 <= layer < _MAX_LAYERS for layer in layers):
        message = f"The value is {shown(value)}; it must be layer numbers from 0 upwards."
        raise _Refused(message)
    return tuple(dict.fromkeys(layers))


def _rank_pattern(value: object, limits: Limits) -> dict[str, int]:
    return _pattern_table(value, limits, _rank)


def _alpha_pattern(value: object, limits: Limits) -> dict[str, float]:
    return _pattern_table(value, limits, _alpha)


def _pattern_table(
    value: object, limits: Limits, parse: Callable[[object, Limits], _Number]
) -> dict[str, _Number]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        message = f"The value is {shown(value)}; it must be an object of module names and numbers."
        raise _Refused(message)
    if len(value) > limits.pattern_keys:
        message = f"There are {len(value)} entries; the limit is {limits.pattern_keys}."
        raise _Refused(message, "Write a name once for all layers, for example q_proj.")
    table = {}
    for key, item in value.items():
        if not 0 < len(key) <= _MAX_TEXT or not key.isprintable():
            message = f"The key {shown(key)} is not the name of a module."
            raise _Refused(message)
        table[key] = parse(item, limits)
    return table


_MODEL_CLASS = re.compile(r"[A-Z][A-Za-z0-9_]{0,100}")
_MODEL_LIBRARY = re.compile(r"transformers\.models\.[a-z0-9_]{1,60}\.modeling_[a-z0-9_]{1,60}")

_FIELDS: dict[str, Callable[[object, Limits], Any]] = {
    "peft_type": _peft_type,
    "task_type": _task_type,
    "auto_mapping": _auto_mapping,
    "base_model_name_or_path": _text,
    "revision": _text,
    "peft_version": _text,
    "r": _rank,
    "lora_alpha": _alpha,
    "lora_dropout": _dropout,
    "use_rslora": _flag,
    "fan_in_fan_out": _flag,
    "inference_mode": _flag,
    "target_modules": _target_modules,
    "exclude_modules": _names_or_pattern,
    "layers_to_transform": _layers_to_transform,
    "layers_pattern": _layers_pattern,
    "rank_pattern": _rank_pattern,
    "alpha_pattern": _alpha_pattern,
}
_REQUIRED = {"peft_type", "r", "lora_alpha", "target_modules"}
_DEFAULTS: dict[str, object] = {
    "task_type": None,
    "auto_mapping": None,
    "base_model_name_or_path": None,
    "revision": None,
    "peft_version": None,
    "lora_dropout": 0.0,
    "use_rslora": False,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "exclude_modules": (),
    "layers_to_transform": (),
    "layers_pattern": (),
    "rank_pattern": {},
    "alpha_pattern": {},
}
