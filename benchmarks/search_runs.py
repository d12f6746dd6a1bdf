"""Whole runs, from loading to the result: lorahub, composer.lorahub, and `compose` by default.

Each program notes when it had everything loaded (before its first evaluation) and when its search
was over; `search_speed` puts the clock around it.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import t5_workload
from composer.base_model import BaseModelSource
from composer.composing import ComposeRequest, compose
from composer.progress import PhaseStarted, Progress
from composer.selection import PoolMember


@dataclass
class Marks:
    """When a program came how far."""

    loaded: float = 0.0
    searched: float = 0.0
    evaluations: int = 0

    def evaluate(self) -> None:
        """Note an evaluation; the first one ends the loading."""
        self.loaded = self.loaded or time.perf_counter()
        self.evaluations += 1


def prepare(name: str, folder: Path, scratch: Path, budget: int) -> Callable[[], Marks]:
    """Return the program of this name, ready to run."""
    workload = t5_workload.read(folder)
    if name == "composer default":
        return lambda: _run_compose(workload, scratch, budget)
    # Each process imports its own program only: its memory is compared.
    module = importlib.import_module("lorahub.algorithm" if name == "lorahub" else name)
    importlib.import_module("nevergrad")  # both need it; ours would import it on the clock
    if name == "lorahub":
        _correct_the_original(module)
    return lambda: _run_learning(module, workload, budget)


def _run_learning(module: Any, workload: t5_workload.Workload, budget: int) -> Marks:
    marks = Marks()

    def get_loss(*arguments: Any) -> float:
        marks.evaluate()
        return float(module.default_get_loss(*arguments))

    module.lorahub_learning(
        [str(place) for place in workload.adapters],
        [row.input for row in workload.examples],
        [row.output for row in workload.examples],
        budget,
        model_name_or_path=str(workload.base),
        get_loss=get_loss,
    )
    marks.searched = time.perf_counter()
    return marks


def _run_compose(workload: t5_workload.Workload, scratch: Path, budget: int) -> Marks:
    """Compose with the default settings, all adapters candidates: the report is part of it."""
    marks = Marks()

    def on_progress(event: Progress) -> None:
        if isinstance(event, PhaseStarted) and event.phase == "screening":
            marks.loaded = time.perf_counter()
        if isinstance(event, PhaseStarted) and event.phase == "merging":
            marks.searched = time.perf_counter()

    request = ComposeRequest(
        base=BaseModelSource("folder", str(workload.base)),
        pool=tuple(PoolMember(place.name, place) for place in workload.adapters),
        examples=workload.examples,
        output_folder=scratch / "composed",
        n_candidates=len(workload.adapters),
        budget=budget,
    )
    marks.evaluations = compose(request, on_progress).evaluations_spent
    return marks


def _correct_the_original(original: Any) -> None:
    """Give the package copies of its modules: with a current peft it would overwrite the last."""
    load = original.load_base_model_and_lora_modules

    def load_copies(*arguments: Any) -> Any:
        model, tokenizer, cache = load(*arguments)
        copies = {
            name: {key: tensor.clone() for key, tensor in state.items()}
            for name, state in cache.items()
        }
        return model, tokenizer, copies

    original.load_base_model_and_lora_modules = load_copies
