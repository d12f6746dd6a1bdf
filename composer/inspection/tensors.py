"""Do the tensors of a weights file make up a LoRA of the base? Exact names, exact shapes.

peft only warns about tensors that it cannot place, and some servers silently answer with the base
instead; so a name that is not in the base, a width that differs, or half a pair is refused here.
Equal complaints about many tensors become one sentence with numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from composer.errors import Problem
from composer.inspection.adapter_config import AdapterConfig
from composer.inspection.patterns import targeted_modules, values_of_modules
from composer.inspection.peft_features import CONFIG_NAME
from composer.inspection.summary import ModuleTable
from composer.limits import Limits
from composer.safetensors_header import DIMENSIONS, WEIGHTS_NAME, TensorInfo, tensor_list
from composer.strict_json import shown

PREFIX = "base_model.model."

_LORA_KEY = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<side>[AB])\.weight")
_SAVE_AGAIN = 'Save the adapter again with peft: model.save_pretrained("folder").'

_Value = TypeVar("_Value", bound=Hashable)


@dataclass
class LoraPair:
    """The two matrices of one module: A (rank, in_features) and B (out_features, rank)."""

    a: TensorInfo | None = None
    b: TensorInfo | None = None

    @property
    def rank(self) -> int | None:
        """Return the rank if both matrices agree on it."""
        if self.a is None or self.b is None or self.a.shape[0] != self.b.shape[1]:
            return None
        return self.a.shape[0]


@dataclass
class TensorReading:
    """The pairs of a file by module path, and the tensors that are no LoRA matrices."""

    pairs: dict[str, LoraPair] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)

    @property
    def ranks(self) -> dict[str, int]:
        """Return the rank of every complete pair."""
        ranks = {path: pair.rank for path, pair in self.pairs.items()}
        return {path: rank for path, rank in ranks.items() if rank is not None}


def read_pairs(tensors: Mapping[str, TensorInfo]) -> TensorReading:
    """Sort tensors into pairs by their names; those without two dimensions are left out."""
    reading = TensorReading()
    for key, tensor in tensors.items():
        match = _LORA_KEY.fullmatch(key)
        if match is None:
            reading.strange.append(key)
        elif len(tensor.shape) == DIMENSIONS:
            pair = reading.pairs.setdefault(match["path"], LoraPair())
            if match["side"] == "A":
                pair.a = tensor
            else:
                pair.b = tensor
    return reading


def tensor_key(path: str, side: str) -> str:
    """Return the name peft gives to one matrix of a module."""
    return f"{PREFIX}{path}.lora_{side}.weight"


def examine_names(reading: TensorReading) -> list[Problem]:
    """Complain about tensors that are no LoRA matrices, by the feature they belong to."""
    groups: dict[tuple[str, str], list[str]] = {}
    for key in reading.strange:
        groups.setdefault(_explain(key), []).append(key)
    return [
        _problem(f"{tensor_list(keys)} {_verb(keys)} not supported: {reason}.", fix)
        for (reason, fix), keys in groups.items()
    ]


def examine_pairs(reading: TensorReading, limits: Limits) -> list[Problem]:
    """Complain about half pairs, and matrices whose ranks differ or are too large."""
    problems = []
    for side, other in (("A", "B"), ("B", "A")):
        lonely = [
            path
            for path, pair in reading.pairs.items()
            if getattr(pair, other.lower()) is None and getattr(pair, side.lower()) is not None
        ]
        if lonely:
            message = f"{module_list(lonely)} {_has(lonely)} lora_{side} but no lora_{other}."
            problems.append(_problem(message, _SAVE_AGAIN))
    unequal = {
        path: (pair.a.shape[0], pair.b.shape[1])
        for path, pair in reading.pairs.items()
        if pair.a is not None and pair.b is not None and pair.rank is None
    }
    for (rank_a, rank_b), paths in _by_value(unequal).items():
        message = f"{module_list(paths)}: lora_A has rank {rank_a}, lora_B has rank {rank_b}."
        problems.append(_problem(message, _SAVE_AGAIN))
    large = {path: rank for path, rank in reading.ranks.items() if rank > limits.rank}
    for rank, paths in _by_value(large).items():
        message = f"{module_list(paths)} {_has(paths)} rank {rank}; the limit is {limits.rank}."
        problems.append(_problem(message, "Train the adapter with a smaller rank."))
    return problems


def examine_against_base(
    reading: TensorReading, table: ModuleTable, base_name: str | None
) -> list[Problem]:
    """Compare names and widths with the linear layers of the base."""
    base = base_name or "the base"
    problems = _examine_places(reading, table, base)
    total = sum((pair.a is not None) + (pair.b is not None) for pair in reading.pairs.values())
    known = {path: pair for path, pair in reading.pairs.items() if path in table}
    wrong = {
        tensor_key(path, "A"): (pair.a.shape[1], table[path][0])
        for path, pair in known.items()
        if pair.a is not None and pair.a.shape[1] != table[path][0]
    } | {
        tensor_key(path, "B"): (pair.b.shape[0], table[path][1])
        for path, pair in known.items()
        if pair.b is not None and pair.b.shape[0] != table[path][1]
    }
    for (width, expected), keys in _by_value(wrong).items():
        message = (
            f"{len(keys)} of {total} tensors {_has(keys)} width {width}; {base} has {expected} "
            f"there (the first is {shown(min(keys), 120)})."
        )
        fix = "Choose the base this adapter was trained on."
        problems.append(Problem(WEIGHTS_NAME, "shape", message, fix))
    return problems


def examine_against_config(
    reading: TensorReading, config: AdapterConfig, paths: Collection[str]
) -> list[Problem]:
    """Compare the tensors with what the config says about modules and ranks."""
    problems = []
    present = {path for path in reading.pairs if path in paths}
    targeted = targeted_modules(config, paths)
    for modules, sentence, fix in (
        (
            targeted - present,
            "target_modules names {0}, but the weights file has no tensors there.",
            "Remove the names from target_modules, or save the adapter again.",
        ),
        (
            present - targeted,
            "The weights file has tensors for {0}, which target_modules leaves out.",
            "Add the names to target_modules, or save the adapter again.",
        ),
    ):
        if modules:
            listed = module_list(modules, start=False)
            message = sentence.format(listed)
            problems.append(Problem(CONFIG_NAME, "target_modules", message, fix))
    declared = values_of_modules(config.rank_pattern, config.rank, reading.ranks)
    differing = {
        path: (rank, declared[path])
        for path, rank in reading.ranks.items()
        if rank != declared[path]
    }
    for (rank, said), modules_with in _by_value(differing).items():
        message = (
            f"The value for {module_list(modules_with, start=False)} is {said}, but the tensors "
            f"have rank {rank}."
        )
        field_name = "rank_pattern" if config.rank_pattern else "r"
        problems.append(Problem(CONFIG_NAME, field_name, message, _SAVE_AGAIN))
    return problems


def module_list(paths: Iterable[str], *, start: bool = True) -> str:
    """Name some modules in a message: one by its path, many by number and first."""
    names = sorted(paths)
    if len(names) == 1:
        return f"{'The' if start else 'the'} module {shown(names[0], 120)}"
    return f"{len(names)} modules (the first is {shown(names[0], 120)})"


def _explain(key: str) -> tuple[str, str]:
    """Say which feature a tensor that is no LoRA matrix belongs to, and what to do."""
    for pattern, reason, fix in _FEATURES:
        if pattern.search(key):
            return reason, fix
    return "this is not a LoRA matrix of peft", _SAVE_AGAIN


def _examine_places(reading: TensorReading, table: ModuleTable, base: str) -> list[Problem]:
    """Complain about modules that the base does not have, and guess why."""
    missing = [path for path in reading.pairs if path not in table]
    if not missing:
        return []
    kinds = Counter(_kind(path) for path in missing)
    known_kinds = {_kind(path) for path in table}
    layers = 1 + max((_layer(path) for path in table), default=-1)
    problems = []
    too_deep = [path for path in missing if _kind(path) in known_kinds and _layer(path) >= layers]
    if too_deep:
        message = (
            f"{module_list(too_deep)} {_belongs(too_deep)} to layers up to "
            f"{max(_layer(path) for path in too_deep)}; {base} has {layers} layers, numbered from "
            "0."
        )
        problems.append(_problem(message, "Choose the base this adapter was trained on."))
    unknown = [path for path in missing if path not in set(too_deep)]
    if unknown:
        message = (
            f"{len(unknown)} of {len(reading.pairs)} modules are not linear layers of {base}: "
            f"{_sample(kinds, unknown)}."
        )
        fix = "Choose the base this adapter was trained on."
        if any(
            f"model.{path}" in table or path.removeprefix("model.") in table for path in unknown
        ):
            fix = "The paths lack or repeat a prefix: save the adapter with peft's save_pretrained."
        problems.append(_problem(message, fix))
    return problems


def _sample(kinds: Counter[str], paths: list[str]) -> str:
    """List the kinds of modules with their numbers, most frequent first."""
    of_paths = Counter({kind: kinds[kind] for kind in {_kind(path) for path in paths}})
    shown_kinds = [f"{kind} ({count})" for kind, count in of_paths.most_common(3)]
    rest = len(of_paths) - len(shown_kinds)
    return ", ".join(shown_kinds) + (f" and {rest} more kinds" if rest > 0 else "")


def _kind(path: str) -> str:
    """Return a path with its numbers blanked, so that all layers look alike."""
    return ".".join("N" if part.isdigit() else part for part in path.split("."))


def _layer(path: str) -> int:
    """Return the number of the layer a path lies in, or -1."""
    return next((int(part[:6]) for part in path.split(".") if part.isdigit()), -1)


def _by_value(values: Mapping[str, _Value]) -> dict[_Value, list[str]]:
    groups: dict[_Value, list[str]] = {}
    for key, value in values.items():
        groups.setdefault(value, []).append(key)
    return groups


def _problem(message: str, fix: str) -> Problem:
    return Problem(WEIGHTS_NAME, "tensors", message, fix)


def _verb(items: Collection[str]) -> str:
    return "is" if len(items) == 1 else "are"


def _has(items: Collection[str]) -> str:
    return "has" if len(items) == 1 else "have"


def _belongs(items: Collection[str]) -> str:
    return "belongs" if len(items) == 1 else "belong"


# The first pattern found in a name decides.
_FEATURES = tuple(
    (re.compile(pattern), reason, fix)
    for pattern, reason, fix in (
        (
            r"lora_magnitude_vector|\.lora_m\b|dora_scale",
            "DoRA's magnitude vectors cannot be merged",
            "Train with use_dora=False.",
        ),
        (
            r"lora_embedding_[AB]",
            "only linear layers can be adapted, not embeddings",
            "Leave embeddings out of target_modules.",
        ),
        (
            r"\.lora_[AB]\.[A-Za-z0-9_]+\.weight$",
            "the name of the adapter is still part of the tensor name",
            "Save with peft's save_pretrained, not with torch.save of the state_dict.",
        ),
        (r"\.lora_[AB]\.bias$", "lora_B cannot have a bias", "Train with lora_bias=False."),
        (
            r"modules_to_save|original_module|token_adapter|trainable_tokens",
            "whole layers of the base are not part of a LoRA",
            "Train without modules_to_save and trainable_token_indices.",
        ),
        (r"\.bias$", "biases of the base are not part of a LoRA", 'Train with bias="none".'),
        (
            r"^lora_unet|^lora_te|^unet\.|^text_encoder|^transformer\..*lora",
            "this is the form of image models",
            "Only adapters of language models can be composed.",
        ),
        (
            r"\.(?:lora_down|lora_up|lora\.down|lora\.up|hada_|lokr_|lora_[AB]\.alpha|alpha)",
            "another tool than peft saved this form",
            "Convert the adapter to peft's format.",
        ),
        (
            r"^(?!base_model\.model\.).*\.lora_[AB]\.weight$",
            f'the prefix "{PREFIX}" is missing',
            "Save with peft's save_pretrained, which adds it.",
        ),
        (
            r"\.base_layer\.|^base_model\.model\..*(?<!lora_A)(?<!lora_B)\.weight$",
            "weights of the base are not part of a LoRA",
            'Save the adapter alone: model.save_pretrained("folder", save_embedding_layers=False).',
        ),
    )
)
