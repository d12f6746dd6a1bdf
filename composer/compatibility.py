"""Which merge methods a set of adapters allows, and every reason against the others.

Works on summaries alone, so that a form can answer before a job is queued. How the methods merge is
told in `composer.merging`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from composer.errors import IncompatibleAdapters
from composer.inspection import AdapterSummary

MergeMethod = Literal["concat", "factor", "svd"]
MERGE_METHODS: tuple[MergeMethod, ...] = get_args(MergeMethod)

_MAX_NAMES = 3


@dataclass(frozen=True)
class Compatibility:
    """The answer for one set of adapters.

    `methods` has for every merge method the reasons against it (none: it is allowed). `fits` says
    for each adapter whether it goes, by that method, with the largest group that goes together: a
    form marks the odd ones out. `concat_rank` is the rank a concatenation of all would have.
    """

    methods: dict[str, tuple[str, ...]]
    fits: dict[str, dict[str, bool]] = field(default_factory=dict)
    concat_rank: int = 0

    @property
    def allowed(self) -> tuple[str, ...]:
        """Return the merge methods with no reason against them."""
        return tuple(method for method, reasons in self.methods.items() if not reasons)

    def require(self, method: str) -> None:
        """Raise with all reasons if `method` is not allowed.

        Raises:
            IncompatibleAdapters: with the reasons in the user's words.
        """
        if method not in self.methods:
            choices = ", ".join(self.methods)
            raise IncompatibleAdapters(f'There is no merge method "{method}"; choose {choices}.')
        if self.methods[method]:
            raise IncompatibleAdapters(self.methods[method])

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as values that JSON can hold."""
        data = asdict(self)
        data["methods"] = {method: list(reasons) for method, reasons in self.methods.items()}
        return data


@dataclass(frozen=True)
class _Trait:
    """One property that must be equal; `words` completes the sentence of a difference."""

    noun: str
    of: Callable[[AdapterSummary], Hashable]
    words: Callable[[Any], str]


def check_compatibility(summaries: Mapping[str, AdapterSummary]) -> Compatibility:
    """Compare the adapters and say which merge methods remain."""
    shared = _reasons(summaries, _ALWAYS, ending="Adapters of one base and task can be merged.")
    factor = _reasons(summaries, _FACTOR_ONLY, ending="Choose concat or svd, which allow it.")
    if not summaries:
        shared = ("There is no adapter to merge. Choose at least one.",)
    return Compatibility(
        methods={"concat": shared, "factor": (*shared, *factor), "svd": shared},
        fits=_fits(summaries),
        concat_rank=_concat_rank(summaries),
    )


def shape_key(summary: AdapterSummary) -> str:
    """Return a word that is equal for adapters of one base and task that factor merging fits.

    A catalogue keeps it beside each adapter and finds the ones that go together by comparing it.
    """
    shape = [
        (path, rank, float(summary.alpha_of(path)), round(summary.scaling_of(path), 9))
        for path, rank in sorted(summary.modules.items())
    ]
    return hashlib.sha256(json.dumps(shape).encode()).hexdigest()


def _reasons(
    summaries: Mapping[str, AdapterSummary], traits: tuple[_Trait, ...], *, ending: str
) -> tuple[str, ...]:
    reasons = []
    for trait in traits:
        groups = _groups(summaries, trait)
        if len(groups) > 1:
            parts = "; ".join(
                f"{trait.words(value)} ({_names(names)})" for value, names in groups.items()
            )
            reasons.append(f"{trait.noun} differ: {parts}. {ending}")
    return tuple(reasons)


def _groups(summaries: Mapping[str, AdapterSummary], trait: _Trait) -> dict[Hashable, list[str]]:
    """Sort the names by the value of a trait, largest group first; unknown values match any."""
    groups: dict[Hashable, list[str]] = {}
    for name, summary in summaries.items():
        value = trait.of(summary)
        if value is not None:
            groups.setdefault(value, []).append(name)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def _fits(summaries: Mapping[str, AdapterSummary]) -> dict[str, dict[str, bool]]:
    always = _odd_ones(summaries, _ALWAYS)
    factor = always | _odd_ones(summaries, _FACTOR_ONLY)
    odd = {"concat": always, "factor": factor, "svd": always}
    return {
        name: {method: name not in odd[method] for method in MERGE_METHODS} for name in summaries
    }


def _odd_ones(summaries: Mapping[str, AdapterSummary], traits: tuple[_Trait, ...]) -> set[str]:
    odd: set[str] = set()
    for trait in traits:
        for names in list(_groups(summaries, trait).values())[1:]:
            odd.update(names)
    return odd


def _concat_rank(summaries: Mapping[str, AdapterSummary]) -> int:
    ranks: dict[str, int] = {}
    for summary in summaries.values():
        for module, rank in summary.modules.items():
            ranks[module] = ranks.get(module, 0) + rank
    return max(ranks.values(), default=0)


def _names(names: list[str]) -> str:
    if len(names) <= _MAX_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[:_MAX_NAMES])} and {len(names) - _MAX_NAMES} more"


def _ranks(summary: AdapterSummary) -> Hashable:
    return _number_or_pattern(summary.modules)


def _alphas(summary: AdapterSummary) -> Hashable:
    return _number_or_pattern({path: summary.alpha_of(path) for path in summary.modules})


def _scalings(summary: AdapterSummary) -> Hashable:
    return _number_or_pattern(
        {path: round(summary.scaling_of(path), 9) for path in summary.modules}
    )


def _number_or_pattern(values: Mapping[str, float]) -> Hashable:
    """Return the one value of all modules or, if they differ, each module's own."""
    distinct = set(values.values())
    return distinct.pop() if len(distinct) == 1 else frozenset(values.items())


def _modules(summary: AdapterSummary) -> Hashable:
    return frozenset(summary.modules)


def _numbers(value: float | frozenset[tuple[str, float]]) -> str:
    if isinstance(value, frozenset):
        numbers = sorted({number for _, number in value})
        return f"{_names([f'{number:g}' for number in numbers])} by module"
    return f"{value:g}"


def _module_words(modules: frozenset[str]) -> str:
    suffixes = sorted({module.rpartition(".")[2] for module in modules})
    return f"{len(modules)} modules, {_names(suffixes)}"


_ALWAYS = (
    _Trait("Base models", lambda summary: summary.base_model_name_or_path, str),
    _Trait("Task types", lambda summary: summary.task_type, str),
)
_FACTOR_ONLY = (
    _Trait("Ranks", _ranks, _numbers),
    _Trait("Alphas", _alphas, _numbers),
    _Trait("Scalings", _scalings, _numbers),
    _Trait("Adapted modules", _modules, _module_words),
)
