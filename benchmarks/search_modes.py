"""One evaluation in every way: by lorahub, by every mode of the composer, and the bare floors.

`search_speed` times what is made here; building the files is left to `t5_workload`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lorahub.algorithm as original
import numpy as np
import torch
from transformers import AutoModelForSeq2SeqLM

from benchmarks import t5_workload
from composer.adapter import LoraAdapter
from composer.base_model import BaseModelSource, Dtype, LoadedBase, load_base
from composer.lorahub import FactorMerge, default_get_loss, make_dataset
from composer.scoring import Scorer, encode_examples
from composer.stacking import AdapterStack, Space

DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")
POPULATION = 8
NON_ZERO = 4

Call = Callable[[], object]


def all_modes(folder: Path, n_adapters: int) -> tuple[dict[str, Call], dict[str, int]]:
    """Return every mode as a call, and how many vectors one call scores."""
    workload = t5_workload.read(folder, n_adapters)
    modes: dict[str, tuple[Call, int]] = {"lorahub": (_lorahub(workload), 1)}
    for dtype in DTYPES:
        plain = AutoModelForSeq2SeqLM.from_pretrained(workload.base, dtype=getattr(torch, dtype))
        base = _load(workload, dtype)
        modes[f"floor, {dtype}"] = (_forward(plain.eval(), base, workload), 1)
        modes[f"composer's base, {dtype}"] = (_forward(base.model, base, workload), 1)
        adapters = [LoraAdapter.load(place, base.module_table) for place in workload.adapters]
        if dtype == "float32":
            modes[f"composer lorahub, {dtype}"] = (_faithful(workload, adapters), 1)
        modes |= {
            f"composer {what}, {dtype}": mode
            for what, mode in _stacked_modes(base, workload, adapters).items()
        }
    calls = {name: call for name, (call, _) in modes.items()}
    return calls, {name: n_vectors for name, (_, n_vectors) in modes.items()}


def growing_modes(
    folder: Path, n_adapters: int, populations: Sequence[int]
) -> dict[str, tuple[Call, int]]:
    """Return the modes whose cost may grow with the number of adapters, made in memory."""
    workload = t5_workload.read(folder)
    exact = _load(workload, "float32")
    base = _load(workload, "auto")
    adapters = [t5_workload.make_adapter(base.module_table, i) for i in range(n_adapters)]
    modes: dict[str, tuple[Call, int]] = {
        "composer lorahub, all weights": (_faithful(workload, adapters, exact), 1)
    }
    rows = encode_examples(base, workload.examples)
    delta = AdapterStack(base, adapters)
    for count in populations:
        steps = _scoring(base, rows, delta, lambda c=count: _steps(n_adapters, c))  # type: ignore[misc]
        modes[f"composer default, {count} at once"] = (steps, count)
    drawn = _scoring(base, rows, delta, lambda: _drawn(n_adapters, 1))
    modes["composer concat, all weights, 1 at once"] = (drawn, 1)
    return modes


def _stacked_modes(
    base: LoadedBase, workload: t5_workload.Workload, adapters: Sequence[LoraAdapter]
) -> dict[str, tuple[Call, int]]:
    """Return the modes of the composer's own search.

    `default` asks as greedy does: a few weights, and steps of one of them; the others draw all
    weights anew for every vector.
    """
    rows = encode_examples(base, workload.examples)
    n = len(adapters)
    modes: dict[str, tuple[Call, int]] = {}
    spaces: tuple[Space, ...] = ("delta", "factor")
    for space in spaces:
        stack = AdapterStack(base, adapters, space=space)
        method = {"delta": "concat", "factor": "factor"}[space]
        if space == "delta":
            modes["default"] = (_scoring(base, rows, stack, lambda: _steps(n, n)), n)
        for count in (1, POPULATION):
            draw = _scoring(base, rows, stack, lambda c=count: _drawn(n, c))  # type: ignore[misc]
            modes[f"{method} {count} at once"] = (draw, count)
    return modes


def _scoring(
    base: LoadedBase,
    rows: Sequence[Any],
    stack: AdapterStack,
    draw: Callable[[], np.ndarray[Any, np.dtype[np.float64]]],
) -> Call:
    scorer = Scorer(base, tuple(rows))

    def call() -> object:
        with stack:
            return scorer.losses(stack, draw())

    return call


def _faithful(
    workload: t5_workload.Workload,
    adapters: Sequence[LoraAdapter],
    base: LoadedBase | None = None,
) -> Call:
    own = base or _load(workload, "float32")
    merge = FactorMerge(own, adapters)
    dataset = make_dataset(own, workload.examples)

    def call() -> object:
        merge.set_weights(_drawn(len(adapters), 1)[0])
        return default_get_loss(dataset, own.model, None)

    return call


def _lorahub(workload: t5_workload.Workload) -> Call:
    model, tokenizer, cache = original.load_base_model_and_lora_modules(
        [str(place) for place in workload.adapters], str(workload.base)
    )
    # The last module's tensors are the model's own with a current peft: see docs/lorahub.md.
    cache = {name: {key: t.clone() for key, t in state.items()} for name, state in cache.items()}
    dataset = original.load_dataset(
        [row.input for row in workload.examples],
        [row.output for row in workload.examples],
        tokenizer,
    )

    def call() -> object:
        return original.get_score(
            _drawn(len(workload.adapters), 1)[0],
            model,
            cache,
            dataset,
            None,
            original.default_get_loss,
            original.default_l1_regularization,
        )

    return call


def _forward(model: Any, base: LoadedBase, workload: t5_workload.Workload) -> Call:
    """Return the bare forward pass of the rows, loss included."""
    dataset = make_dataset(base, workload.examples)
    names = ("input_ids", "attention_mask", "labels")
    batch = {name: torch.tensor(dataset[name]) for name in names}

    def call() -> object:
        with torch.inference_mode():
            return float(model(**batch, use_cache=False).loss)

    return call


def _load(workload: t5_workload.Workload, dtype: Dtype) -> LoadedBase:
    return load_base(BaseModelSource("folder", str(workload.base)), dtype=dtype, device="cpu")


_random = np.random.default_rng(0)


def _drawn(n_adapters: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return _random.uniform(-1.5, 1.5, (count, n_adapters))


def _steps(n_adapters: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return one step along each of `count` axes from a vector with a few weights."""
    centre = np.zeros(n_adapters)
    centre[:NON_ZERO] = _random.uniform(-1.5, 1.5, NON_ZERO)
    population = np.tile(centre, (count, 1))
    axes = _random.permutation(np.arange(count) % n_adapters)
    population[np.arange(count), axes] += 0.5
    return population
