"""The quick LoRA inside a composition: trained on top of what was found, and alone to compare with.

Only `ComposeRequest.quick_lora` asks for this; it is the part of a composition that uses gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from composer.adapter import LoraAdapter
from composer.base_model import LoadedBase
from composer.composing.preparing import Work, fit_scorer
from composer.composing.searching import Found, fingerprint_of
from composer.merging import merge_adapters
from composer.progress import EvaluationScored, LogLine, TrainingStepped
from composer.quick_lora import LoraShape, QuickLoraSettings, TrainingRun, train_quick_lora
from composer.scoring import l1_penalty
from composer.search import finite_losses
from composer.stacking import AdapterStack

# The LoRA has seen the answers, so at full strength it fits them too well. On the five targets that
# settings were chosen on, half of it scored 62.0 at 5 rows, the whole 57.3, a LoRA alone 47.9.
STRENGTH = 0.5


@dataclass(frozen=True)
class QuickLora:
    """The LoRA that takes part, and the one trained alone on the same rows to compare with."""

    adapter: LoraAdapter
    alone: LoraAdapter
    facts: dict[str, Any]  # for recipe and card; `weight` is how much of it takes part


def add_quick_lora(
    work: Work, base: LoadedBase, candidates: Sequence[LoraAdapter], found: Found
) -> tuple[QuickLora, Found]:
    """Train on top of what was found; let it take part if the loss of the fit rows falls.

    The weight of the LoRA becomes the last of `Found.weights`.
    """
    settings = QuickLoraSettings(seed=work.request.seed)
    work.phase(
        "training",
        f"training a LoRA on {len(work.split.fit)} rows, alone and on top: this uses gradients",
        2 * settings.steps,
    )
    beneath = merge_adapters(*found.weighed(candidates), "concat").adapter
    rows = fit_scorer(work, base).examples
    shape = LoraShape.like(candidates)
    name = f"{fingerprint_of(work, base, candidates)}|{found.weights}"
    alone = train_quick_lora(base, rows, shape, settings, run=_run(work, settings, 0, name))
    on_top = train_quick_lora(
        base, rows, shape, settings, beneath=beneath, run=_run(work, settings, 1, name)
    )
    found = _join(work, base, candidates, on_top.adapter, found)
    facts = {
        "weight": found.weights[-1],
        "steps": on_top.steps,
        "learning_rate": settings.learning_rate,
        "rank": max(rank for rank, _ in shape.layers.values()),
    }
    if on_top.steps < settings.steps:
        work.on_progress(LogLine(f"training ended after {on_top.steps} steps: no number after it"))
    return QuickLora(on_top.adapter, alone.adapter, facts), found


def _run(work: Work, settings: QuickLoraSettings, part: int, name: str) -> TrainingRun:
    total = 2 * settings.steps

    def on_step(done: int, loss: float) -> None:
        work.on_progress(TrainingStepped(part * settings.steps + done, total, loss))

    path = work.request.checkpoint
    return TrainingRun(
        on_step=on_step,
        should_stop=work.should_stop,
        checkpoint=path and path.with_name(f"{path.name}.training{part}.safetensors"),
        fingerprint=name,
    )


def _join(
    work: Work,
    base: LoadedBase,
    candidates: Sequence[LoraAdapter],
    trained: LoraAdapter,
    found: Found,
) -> Found:
    """Score the composition with and without the LoRA, in one layout; keep the better."""
    parts, weights = found.weighed(candidates)
    vectors = np.array([(*weights, 0.0), (*weights, STRENGTH)])
    with AdapterStack(base, [*parts, trained]) as stack:
        fit = finite_losses(fit_scorer(work, base).losses(stack, vectors).mean(axis=1))
    losses = fit + l1_penalty(vectors, work.request.l1_penalty)
    takes_part = bool(losses[1] < losses[0])
    number = found.n_evaluations
    work.on_progress(
        EvaluationScored(
            number=number,
            budget=work.request.budget,
            weights=(*found.weights, STRENGTH),
            loss=float(losses[1]),
            fit_loss=float(fit[1]),
            is_best=takes_part,
        )
    )
    strength = STRENGTH if takes_part else 0.0
    in_blocks = bool(found.parts)
    return replace(
        found,
        weights=(*found.weights, strength),
        parts=(*found.parts, trained) if in_blocks else (),
        part_weights=(*found.part_weights, strength) if in_blocks else (),
        fit_loss=float(fit[1]) if takes_part else found.fit_loss,
        n_evaluations=number + 1,
    )
