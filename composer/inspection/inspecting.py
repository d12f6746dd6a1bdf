"""The road of one inspection: read both files, compare them, and report everything at once.

A problem in one file does not stop the other from being read, so that an author can mend all of
them before the next try.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from composer.errors import InvalidAdapter, Problem
from composer.inspection.adapter_config import AdapterConfig, examine_config
from composer.inspection.patterns import (
    examine_patterns,
    shortest_names,
    shortest_pattern,
    values_of_modules,
)
from composer.inspection.peft_features import CONFIG_NAME
from composer.inspection.summary import AdapterSummary, ModuleTable
from composer.inspection.tensors import (
    TensorReading,
    examine_against_base,
    examine_against_config,
    examine_names,
    examine_pairs,
    read_pairs,
    tensor_key,
)
from composer.limits import DEFAULT, Limits
from composer.pickle_reader import PICKLE_NAME
from composer.safetensors_header import (
    WEIGHTS_NAME,
    SafetensorsHeader,
    Values,
    examine_header,
    examine_values,
    tensor_list,
)

_MAX_PROBLEMS = 50
_SAVE = 'Save the adapter with peft, model.save_pretrained("folder"), and give both files.'


@dataclass(frozen=True)
class _Weights:
    """A weights file as far as it could be read."""

    reading: TensorReading
    header: SafetensorsHeader | None = None
    values: Values | None = None


def inspect_adapter(
    folder: Path,
    module_table: ModuleTable | None,
    *,
    base_name: str | None = None,
    limits: Limits = DEFAULT,
) -> AdapterSummary:
    """Accept a folder as a LoRA adapter of a base, or say everything that is wrong with it.

    Without a `module_table` the adapter is checked in itself, but not against a base. `base_name`
    is what messages and the rebuilt config call the base.

    Raises:
        InvalidAdapter: with all problems.
    """
    problems: list[Problem] = []
    config = _read_config(folder, limits, problems)
    weights = _read_weights(folder, limits, problems)
    paths: Collection[str] = weights.reading.pairs if module_table is None else module_table
    if module_table is not None:
        problems.extend(examine_against_base(weights.reading, module_table, base_name))
    if config is not None:
        of_patterns = examine_patterns(config, paths, limits)
        problems.extend(of_patterns)
        if not of_patterns and weights.reading.pairs:
            problems.extend(examine_against_config(weights.reading, config, paths))
    if problems or config is None or weights.header is None or weights.values is None:
        raise InvalidAdapter(_shortened(problems))
    names = _target_names(config, weights.reading.ranks, module_table)
    return _summarise(config, names, weights, base_name)


def _read_config(folder: Path, limits: Limits, problems: list[Problem]) -> AdapterConfig | None:
    path = folder / CONFIG_NAME
    if not path.is_file():
        problems.append(Problem(CONFIG_NAME, "", "The file is missing.", _SAVE))
        return None
    size = path.stat().st_size
    if size > limits.config_bytes:
        message = f"The file has {size} bytes; the limit is {limits.config_bytes}."
        problems.append(Problem(CONFIG_NAME, "", message, "Save it with peft's save_pretrained."))
        return None
    reading = examine_config(path.read_bytes(), limits)
    problems.extend(reading.problems)
    return reading.config


def _read_weights(folder: Path, limits: Limits, problems: list[Problem]) -> _Weights:
    path = folder / WEIGHTS_NAME
    nothing = _Weights(TensorReading())
    if not path.is_file():
        problems.append(_missing_weights(folder))
        return nothing
    size = path.stat().st_size
    if size > limits.weights_bytes:
        message = f"The file has {size} bytes; the limit is {limits.weights_bytes}."
        fix = "Save in float16, or train with a smaller rank or fewer modules."
        problems.append(Problem(WEIGHTS_NAME, "", message, fix))
        return nothing
    with path.open("rb") as file:
        examined = examine_header(file, limits)
        reading = read_pairs(examined.tensors)
        # A name of another feature often explains a wrong shape, so it is told first.
        problems.extend(examine_names(reading))
        problems.extend(examined.problems)
        problems.extend(examine_pairs(reading, limits))
        if examined.header is None:
            return _Weights(reading)
        values = examine_values(file, examined.header)
    if values.not_finite:
        message = f"{tensor_list(values.not_finite)}: there are NaN or infinite values."
        fix = "The training diverged: train again with a lower learning rate, or in bfloat16."
        problems.append(Problem(WEIGHTS_NAME, "values", message, fix))
    return _Weights(reading, examined.header, values)


def _missing_weights(folder: Path) -> Problem:
    if (folder / PICKLE_NAME).is_file():
        message = f"The file is missing; there is only {PICKLE_NAME}, a pickle."
        fix = f"Convert it with composer.convert_pickle, or save with peft to get {WEIGHTS_NAME}."
        return Problem(WEIGHTS_NAME, "", message, fix)
    return Problem(WEIGHTS_NAME, "", "The file is missing.", _SAVE)


def _shortened(problems: list[Problem]) -> list[Problem]:
    if len(problems) <= _MAX_PROBLEMS:
        return problems
    more = len(problems) - _MAX_PROBLEMS
    return [*problems[:_MAX_PROBLEMS], Problem("", "", f"There are {more} more problems.")]


def _target_names(
    config: AdapterConfig, ranks: dict[str, int], module_table: ModuleTable | None
) -> list[str]:
    """Name the adapted modules literally, in short where that means the same in the base."""
    if module_table is not None:
        return shortest_names(ranks, module_table)
    if (
        isinstance(config.target_modules, str)
        or config.layers_to_transform
        or config.exclude_modules
    ):
        return sorted(ranks)
    return list(config.target_modules)


def _summarise(
    config: AdapterConfig, names: list[str], weights: _Weights, base_name: str | None
) -> AdapterSummary:
    header, values = weights.header, weights.values
    if header is None or values is None:
        message = "only a weights file without problems is summarised"
        raise AssertionError(message)
    ranks = weights.reading.ranks
    clean = _clean_config(config, names, ranks)
    clean["base_model_name_or_path"] = base_name or config.base_model_name_or_path
    zero = set(values.all_zero)
    return AdapterSummary(
        peft_type="LORA",
        task_type=config.task_type,
        base_model_name_or_path=clean["base_model_name_or_path"],
        rank=max(ranks.values()),
        alpha=config.alpha,
        use_rslora=config.use_rslora,
        rank_pattern=clean["rank_pattern"],
        alpha_pattern=clean["alpha_pattern"],
        target_modules=tuple(sorted({path.rpartition(".")[2] for path in ranks})),
        modules=dict(sorted(ranks.items())),
        dtype=_widest({tensor.dtype for tensor in header.tensors.values()}),
        tensor_count=len(header.tensors),
        parameter_count=sum(
            tensor.shape[0] * tensor.shape[1] for tensor in header.tensors.values()
        ),
        weights_size=header.file_size,
        weights_sha256=values.sha256,
        peft_version=config.peft_version,
        config=clean,
        zero_modules=tuple(
            path for path in sorted(ranks) if zero & {tensor_key(path, side) for side in "AB"}
        ),
    )


def _clean_config(config: AdapterConfig, names: list[str], ranks: dict[str, int]) -> dict[str, Any]:
    """Rebuild adapter_config.json from what was understood: literal names, no pattern of a user.

    The layers that were chosen by number, exclusion or pattern are written out as names.
    """
    alphas = values_of_modules(config.alpha_pattern, config.alpha, ranks)
    clean: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": config.task_type,
        "base_model_name_or_path": config.base_model_name_or_path,
        "revision": config.revision,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.use_rslora,
        "fan_in_fan_out": config.fan_in_fan_out,
        "bias": "none",
        "init_lora_weights": True,
        "target_modules": names,
        "rank_pattern": shortest_pattern(ranks, config.rank),
        "alpha_pattern": shortest_pattern(alphas, config.alpha),
    }
    if config.peft_version is not None:
        clean["peft_version"] = config.peft_version
    return clean


def _widest(dtypes: set[str]) -> str:
    """Name the type that holds all values: two different 16-bit types need 32 bits."""
    return dtypes.pop() if len(dtypes) == 1 else "F32"
