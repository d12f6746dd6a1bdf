"""Settings of peft that the composer does not support, and the values at which they are off.

Every adapter_config.json carries them all, because peft writes its defaults out. Off is dropped;
anything else is refused by name with the way to train or convert without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from composer.errors import Problem
from composer.strict_json import shown

CONFIG_NAME = "adapter_config.json"

_MAX_SHOWN_KEY = 60


def examine_feature(key: str, value: object) -> list[Problem]:
    """Judge a key that the rebuilt config does not have."""
    name = key if key.isprintable() and len(key) <= _MAX_SHOWN_KEY else shown(key)
    if key == "init_lora_weights":
        return _examine_init(value)
    if key in _OFF:
        off = _OFF[key]
        if any(_same(value, allowed) for allowed in off.values):
            return []
        message = f"The value {shown(value)} is not supported: {off.reason}."
        return [Problem(CONFIG_NAME, name, message, off.fix)]
    # A later peft writes keys that do not exist yet; those that are off cannot matter.
    if value is None or value is False or value in ({}, []):
        return []
    message = f"The key is unknown and has the value {shown(value)}."
    fix = "Delete the key if the adapter is a plain LoRA; other variants are not supported."
    return [Problem(CONFIG_NAME, name, message, fix)]


def _examine_init(value: object) -> list[Problem]:
    """Initial values do not matter once trained, unless making them changed the base as well."""
    if any(_same(value, allowed) for allowed in _HARMLESS_INITS):
        return []
    if value in ("eva", "mica"):
        reason = "it runs a decomposition when the adapter is loaded"
        fix = 'Set it to true: the trained weights stay the same; remove "eva_config" as well.'
    else:
        reason = "it changes the weights of the base, so that the adapter alone is not complete"
        fix = _CONVERT
    message = f"The value {shown(value)} is not supported: {reason}."
    return [Problem(CONFIG_NAME, "init_lora_weights", message, fix)]


def _same(value: object, allowed: object) -> bool:
    """Compare strictly: 0 is not false, 1 is not true."""
    return type(value) is type(allowed) and value == allowed


@dataclass(frozen=True)
class _Off:
    """A feature of peft that is not supported: the values that mean "off", and what it does."""

    values: tuple[object, ...]
    reason: str
    fix: str


_PLAIN = "Train a plain LoRA without it."
_CONVERT = (
    "Convert it to a plain LoRA with peft: "
    'model.save_pretrained("folder", path_initial_model_for_weight_conversion="initial").'
)
_VARIANT = "it is another method than plain LoRA, which cannot be merged"

# Every key that any release of peft from 0.1 to 0.21 writes and that is off by default.
_OFF: dict[str, _Off] = {
    "bias": _Off(("none",), "it changes biases of the base", 'Train with bias="none".'),
    "modules_to_save": _Off(
        (None, []), "it stores whole layers of the base", "Train without modules_to_save."
    ),
    "trainable_token_indices": _Off((None,), "it changes token embeddings", _PLAIN),
    "target_parameters": _Off((None, []), "it changes parameters outside linear layers", _PLAIN),
    "ensure_weight_tying": _Off((False,), "it ties layers that are not linear", _PLAIN),
    "lora_bias": _Off((False,), "it adds a bias to lora_B", "Train with lora_bias=False."),
    "use_dora": _Off((False,), "DoRA adds magnitude vectors", "Train with use_dora=False."),
    "use_qalora": _Off((False,), _VARIANT, "Train with use_qalora=False."),
    "qalora_group_size": _Off((16, None), _VARIANT, "Set it to 16, which is its default."),
    "use_bdlora": _Off((None, False), _VARIANT, _PLAIN),
    "alora_invocation_tokens": _Off((None,), _VARIANT, _PLAIN),
    "velora_config": _Off((None,), _VARIANT, _PLAIN),
    "monteclora_config": _Off((None,), _VARIANT, _PLAIN),
    "arrow_config": _Off((None,), _VARIANT, _PLAIN),
    "kasa_config": _Off((None,), "it changes the weights of the base", _PLAIN),
    "layer_replication": _Off((None,), "it changes the layers of the base", _PLAIN),
    "loftq_config": _Off(({}, None), "it replaces the weights of the base", _CONVERT),
    "corda_config": _Off((None,), "it opens files by path and changes the base", _CONVERT),
    "lora_ga_config": _Off((None,), "it changes the weights of the base", _CONVERT),
    "eva_config": _Off(
        (None,),
        "it runs a decomposition when the adapter is loaded",
        'Set it to null and "init_lora_weights" to true: the trained weights stay the same.',
    ),
    "megatron_config": _Off((None,), "it configures Megatron layers", "Set it to null."),
    "megatron_core": _Off(
        ("megatron.core", None), "it names code to import", 'Set it to "megatron.core" or null.'
    ),
    "runtime_config": _Off(
        (None, {}, {"ephemeral_gpu_offload": False}), "it belongs to the reader", "Delete the key."
    ),
    "enable_lora": _Off((None,), "it belongs to merged linear layers of peft 0.1", _PLAIN),
    "merge_weights": _Off((False, None), "it changes the base when loading", "Set it to false."),
}

_HARMLESS_INITS = (True, False, None, "gaussian", "orthogonal")
