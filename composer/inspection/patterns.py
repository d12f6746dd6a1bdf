"""Which modules of a base an adapter's settings name, found without running a stranger's regex.

peft matches `target_modules`, `exclude_modules` and the keys of `rank_pattern` and `alpha_pattern`
with `re`, where one pattern can run for ever. Here they are matched by google-re2, in linear time,
with the same meaning; what it cannot express (look-around, back references) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import re2

from composer.errors import Problem
from composer.inspection.adapter_config import AdapterConfig, is_literal
from composer.inspection.peft_features import CONFIG_NAME
from composer.limits import Limits
from composer.strict_json import shown

ALL_LINEAR = "all-linear"

# The output head, which peft leaves out of "all-linear". A saved config has the names written out.
_HEADS = {"lm_head", "embed_out"}
_PATTERN_MEMORY = 1 << 20
_Number = TypeVar("_Number", int, float)
_Match = Callable[[str], bool]


def targeted_modules(config: AdapterConfig, paths: Collection[str]) -> frozenset[str]:
    """Return those of the base's linear layers that peft would adapt with this config.

    The patterns of the config must have passed `examine_patterns`.
    """
    wanted = _matcher(config.target_modules)
    excluded = _matcher(config.exclude_modules)
    in_layers = _layer_matcher(config)
    return frozenset(
        path for path in paths if wanted(path) and in_layers(path) and not excluded(path)
    )


def examine_patterns(
    config: AdapterConfig, paths: Collection[str], limits: Limits
) -> list[Problem]:
    """Collect everything that is wrong with the config's names and patterns.

    `paths` are the base's linear layers: complete paths among the targets do not count towards the
    limit, because a base has only so many.
    """
    problems = []
    for key in ("target_modules", "exclude_modules"):
        value = getattr(config, key)
        if isinstance(value, str) and value.lower() != ALL_LINEAR and _compiled(value) is None:
            problems.append(_refused(key, value, "Write the module names as a list."))
        elif not isinstance(value, str):
            problems.extend(_examine_count(key, value, paths, limits))
    for key in ("rank_pattern", "alpha_pattern"):
        problems.extend(
            _refused(key, name, "Use module names as keys.")
            for name in getattr(config, key)
            if not is_literal(name) and _compiled(_pattern_of_key(name)) is None
        )
    if isinstance(config.target_modules, str) and config.layers_to_transform:
        message = "The value cannot be combined with a pattern in target_modules."
        fix = "Put the layer numbers into the pattern, or write target_modules as a list."
        problems.append(Problem(CONFIG_NAME, "layers_to_transform", message, fix))
    return problems


def values_of_modules(
    pattern: Mapping[str, _Number], default: _Number, modules: Iterable[str]
) -> dict[str, _Number]:
    """Return each module's own rank or alpha: that of the first key that matches, as in peft."""
    matchers = [(_key_matcher(key), value) for key, value in pattern.items()]
    return {
        module: next((value for matches, value in matchers if matches(module)), default)
        for module in modules
    }


def shortest_names(modules: Collection[str], paths: Collection[str]) -> list[str]:
    """Name `modules` so that peft finds them and no other of `paths`: last names where possible."""
    names = set()
    for last_name, group in _by_last_name(modules).items():
        others = {path for path in paths if path.rpartition(".")[2] == last_name} - group
        names.update(group if others else {last_name})
    return sorted(names)


def shortest_pattern(values: Mapping[str, _Number], default: _Number) -> dict[str, _Number]:
    """Write down the values that differ from `default` with literal keys only.

    Complete paths come first, so that a last name never shadows them.
    """
    by_path: dict[str, _Number] = {}
    by_last_name: dict[str, _Number] = {}
    for last_name, group in _by_last_name(values).items():
        distinct = {values[path] for path in group}
        if len(distinct) > 1:
            by_path.update({path: values[path] for path in sorted(group)})
        elif distinct != {default}:
            by_last_name[last_name] = distinct.pop()
    # A longer path first: peft takes a key for the ending of a path, too.
    ordered = sorted(by_path, key=lambda path: (-len(path), path))
    needed = {
        path: by_path[path]
        for path in ordered
        if by_path[path] != default or any(end in by_path for end in list(_endings(path))[1:])
    }
    return needed | by_last_name


def _matcher(names: tuple[str, ...] | str) -> _Match:
    if isinstance(names, str):
        if names.lower() == ALL_LINEAR:
            return lambda path: path.rpartition(".")[2] not in _HEADS
        pattern = _compiled(names)
        return lambda path: pattern is not None and pattern.fullmatch(path) is not None
    exact = set(names)
    return lambda path: any(ending in exact for ending in _endings(path))


def _endings(path: str) -> Iterable[str]:
    """Yield a path and everything that follows one of its dots."""
    yield path
    while "." in path:
        path = path.partition(".")[2]
        yield path


def _layer_matcher(config: AdapterConfig) -> _Match:
    if not config.layers_to_transform:
        return lambda _: True
    layers = set(config.layers_to_transform)
    if config.layers_pattern:
        names = "|".join(re2.escape(name) for name in config.layers_pattern)
        pattern = _compiled(rf"(?:.*?\.)??(?:{names})\.(\d+)\..*")
    else:
        pattern = _compiled(r".*?\.[^.]*\.(\d+)\..*")

    def matches(path: str) -> bool:
        found = pattern.fullmatch(path) if pattern is not None else None
        return found is not None and int(found.group(1)) in layers

    return matches


def _key_matcher(key: str) -> _Match:
    if is_literal(key):
        return lambda path: path == key or path.endswith(f".{key}")
    pattern = _compiled(_pattern_of_key(key))
    return lambda path: pattern is not None and pattern.fullmatch(path) is not None


def _pattern_of_key(key: str) -> str:
    return rf"(?:.*\.)?(?:{key})$"


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = _PATTERN_MEMORY
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None


def _examine_count(
    key: str, names: tuple[str, ...], paths: Collection[str], limits: Limits
) -> list[Problem]:
    count = sum(name not in paths for name in names)
    if count <= limits.target_modules:
        return []
    message = f"The list has {count} names; the limit is {limits.target_modules}."
    fix = 'Write a name once for all layers, for example "q_proj".'
    return [Problem(CONFIG_NAME, key, message, fix)]


def _refused(key: str, pattern: str, fix: str) -> Problem:
    message = (
        f"The pattern {shown(pattern)} is not valid, or needs look-around or back references, "
        "which can take for ever to match."
    )
    return Problem(CONFIG_NAME, key, message, fix)


def _by_last_name(paths: Iterable[str]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for path in paths:
        groups.setdefault(path.rpartition(".")[2], set()).add(path)
    return groups
