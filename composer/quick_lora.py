"""`quick_lora`: train a LoRA on the fit rows, to join the candidates as one more of them.

An extra that uses gradients and is named as such wherever it is used: about 25 steps of AdamW on
float32 factors over the frozen base, of the shape that the pool has. It is trained on top of what
the pool was composed to, so that it only has to learn what the pool does not know; alone, it is the
reference that a composition must beat.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import linear

from composer.adapter import LoraAdapter, LoraLayer
from composer.backpropagation import Update, hooked, mean_loss
from composer.base_model import LoadedBase
from composer.errors import SearchError, Stopped, StorageFull
from composer.progress import ShouldStop, never
from composer.scoring import EncodedExample

QUICK_LORA = "quick LoRA trained on your examples"

# Writing a checkpoint of a large LoRA after every step would cost more than a step.
CHECKPOINT_SECONDS = 2.0
LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class QuickLoraSettings:
    """How to train; the defaults were chosen on five open targets and reported on the others.

    `step_tokens` bounds the padded tokens of one step: of many rows a step sees some. The learning
    rate falls linearly to zero.
    """

    steps: int = 25
    learning_rate: float = 3e-3
    step_tokens: int = 1024
    seed: int = 42


@dataclass(frozen=True)
class LoraShape:
    """The layers to adapt, each with (rank, scaling)."""

    layers: Mapping[str, tuple[int, float]]

    @classmethod
    def like(cls, adapters: Sequence[LoraAdapter]) -> LoraShape:
        """Return every layer that any of the adapters changes, as the most of them change it."""
        seen: dict[str, Counter[tuple[int, float]]] = {}
        for adapter in adapters:
            for path, layer in adapter.layers.items():
                seen.setdefault(path, Counter())[layer.rank, layer.scaling] += 1
        return cls({path: count.most_common(1)[0][0] for path, count in seen.items()})


@dataclass(frozen=True)
class TrainingRun:
    """Whom a training tells and asks, and where it keeps what a killed worker goes on from.

    `on_step` hears the number of steps done and the loss that the last one started from. A
    checkpoint of another `fingerprint` is not resumed.
    """

    on_step: Callable[[int, float], None] = lambda done, loss: None
    should_stop: ShouldStop = never
    checkpoint: Path | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class TrainedLora:
    """What a training ended with; fewer steps than asked for where a loss was no number."""

    adapter: LoraAdapter
    steps: int


def train_quick_lora(
    base: LoadedBase,
    rows: Sequence[EncodedExample],
    shape: LoraShape,
    settings: QuickLoraSettings,
    *,
    beneath: LoraAdapter | None = None,
    run: TrainingRun | None = None,
) -> TrainedLora:
    """Train a LoRA of `shape` on the rows over the frozen base, and over `beneath` if given.

    The same arguments give the same factors, also after a stop and a resume.

    Raises:
        SearchError: the loss of the very first step is no number.
        Stopped: between two steps, if the caller asked to stop; a checkpoint is kept.
        InsufficientMemory: one step does not fit into memory.
        StorageFull: a checkpoint cannot be written.
    """
    run = run or TrainingRun()
    state = _State(base, shape, settings)
    frozen = beneath.layers if beneath else {}
    updates = {
        path: _sum(state.factors.get(path), frozen.get(path))
        for path in dict.fromkeys([*shape.layers, *frozen])
    }
    # Whoever goes on must train the same on top of the same.
    name = f"{run.fingerprint}|{settings}|{sorted(shape.layers.items())}|{sorted(frozen)}"
    with hooked(base, updates):
        done = _train(base, rows, state, replace(run, fingerprint=name))
    if not done:
        message = "The loss of your examples is no number, so no LoRA can be trained on them."
        raise SearchError(f"{message} Check that the base model works.")
    task = "SEQ_2_SEQ_LM" if base.is_seq2seq else "CAUSAL_LM"
    layers = {path: factors.layer() for path, factors in state.factors.items()}
    return TrainedLora(LoraAdapter(QUICK_LORA, layers, base.source.title, task), done)


def _train(
    base: LoadedBase, rows: Sequence[EncodedExample], state: _State, run: TrainingRun
) -> int:
    """Take the steps that an earlier run has not taken; return how many are done."""
    checkpoint = _Checkpoint(run.checkpoint, run.fingerprint) if run.checkpoint else None
    done = checkpoint.restore(state) if checkpoint else 0
    batches = _batches(rows, state.settings)
    try:
        while done < len(batches):
            if run.should_stop():
                raise Stopped("Stopped by request.")
            loss = _step(base, [rows[i] for i in batches[done]], state, done)
            if loss is None:
                break
            done += 1
            run.on_step(done, loss)
            if checkpoint:
                checkpoint.write_sometimes(state, done)
    finally:
        if checkpoint:
            checkpoint.write(state, done)
    return done


class _Factors:
    """The two factors of one layer in float32, B zero at first: the layer starts as the base's."""

    def __init__(
        self, sizes: tuple[int, int], rank: int, scaling: float, generator: torch.Generator
    ) -> None:
        wide, high = sizes
        # As peft: Kaiming uniform with a = sqrt(5), which is this bound. Drawn on the processor, so
        # that the device does not matter.
        drawn = torch.rand((rank, wide), generator=generator, dtype=torch.float32)
        self.a = nn.Parameter((2 * drawn - 1) / math.sqrt(wide))  # (rank, in_features)
        self.b = nn.Parameter(torch.zeros(high, rank))  # (out_features, rank)
        self.scaling = scaling

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return linear(linear(x, self.a.to(x.dtype)), (self.scaling * self.b).to(x.dtype))

    def layer(self) -> LoraLayer:
        """Return what was learned, on the processor."""
        a, b = (item.detach().cpu().clone() for item in (self.a, self.b))
        return LoraLayer(a, b, self.scaling)


class _State:
    """Everything that changes in training: the factors and AdamW's moments."""

    def __init__(self, base: LoadedBase, shape: LoraShape, settings: QuickLoraSettings) -> None:
        generator = torch.Generator().manual_seed(settings.seed)
        self.settings = settings
        self.factors = {
            path: _Factors(base.module_table[path], rank, scaling, generator)
            for path, (rank, scaling) in shape.layers.items()
        }
        for factors in self.factors.values():
            factors.a.data = factors.a.data.to(base.device)
            factors.b.data = factors.b.data.to(base.device)
        self.parameters = [item for f in self.factors.values() for item in (f.a, f.b)]
        self.adam = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=0.0, foreach=False
        )


def _step(
    base: LoadedBase, rows: Sequence[EncodedExample], state: _State, done: int
) -> float | None:
    """Take one step; return the loss it started from, None where it or a gradient is no number."""
    settings = state.settings
    for group in state.adam.param_groups:
        group["lr"] = settings.learning_rate * (1 - done / settings.steps)
    state.adam.zero_grad()
    loss = mean_loss(base, rows)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.parameters, LARGEST_GRADIENT)
    value = float(loss.detach())
    if not (math.isfinite(value) and bool(norm.isfinite())):
        return None
    state.adam.step()
    return value


def _batches(rows: Sequence[EncodedExample], settings: QuickLoraSettings) -> list[list[int]]:
    """Return the rows of every step: all of them where they fit, else shuffled round and round."""
    draw = random.Random(settings.seed)  # noqa: S311 - reproducible
    waiting: list[int] = []
    batches = []
    for _ in range(settings.steps):
        batch: list[int] = []
        longest = 0
        while len(batch) < len(rows):
            if not waiting:
                waiting = draw.sample(range(len(rows)), len(rows))
            longest = max(longest, rows[waiting[0]].n_tokens)
            if batch and longest * (len(batch) + 1) > settings.step_tokens:
                break
            batch.append(waiting.pop(0))
        batches.append(batch)
    return batches


def _sum(factors: _Factors | None, layer: LoraLayer | None) -> Update:
    """Return what is trained plus what lies beneath it, as far as there are both."""
    if layer is None:
        return cast("_Factors", factors)
    frozen = _frozen(layer)
    return frozen if factors is None else lambda x: frozen(x) + factors(x)


def _frozen(layer: LoraLayer) -> Update:
    """Return the update of a layer that training does not change."""
    scaled = layer.b.float() * layer.scaling
    kept: dict[tuple[torch.device, torch.dtype], tuple[torch.Tensor, torch.Tensor]] = {}

    def update(x: torch.Tensor) -> torch.Tensor:
        where = (x.device, x.dtype)
        if where not in kept:
            kept[where] = (layer.a.to(*where), scaled.to(*where))
        a, b = kept[where]
        return linear(linear(x, a), b)

    return update


@dataclass
class _Checkpoint:
    """The state of a training in one safetensors file, replaced atomically."""

    path: Path
    fingerprint: str
    _written_at: float = field(default_factory=time.monotonic)

    def restore(self, state: _State) -> int:
        """Take the state of an earlier run; return how many steps it had done, 0 without one."""
        try:
            with safe_open(self.path, framework="pt") as file:
                told = json.loads(file.metadata()["training"])
                if told["fingerprint"] != self.fingerprint:
                    return 0
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            stored = [
                [tensors[f"{i}.{kind}"] for kind in ("value", "exp_avg", "exp_avg_sq")]
                for i in range(len(state.parameters))
            ]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return 0  # none, a torn one, or one of another version
        for parameter, (value, first, second) in zip(state.parameters, stored, strict=True):
            device = parameter.device
            parameter.data = value.to(device)
            state.adam.state[parameter] = {
                "step": torch.tensor(float(told["steps"])),
                "exp_avg": first.to(device),
                "exp_avg_sq": second.to(device),
            }
        return int(told["steps"])

    def write_sometimes(self, state: _State, done: int) -> None:
        """Write, unless that was done a moment ago."""
        if time.monotonic() - self._written_at >= CHECKPOINT_SECONDS:
            self.write(state, done)

    def write(self, state: _State, done: int) -> None:
        """Replace the file by the state after `done` steps."""
        if not done:
            return
        tensors = {}
        for i, parameter in enumerate(state.parameters):
            moments = state.adam.state[parameter]
            tensors[f"{i}.value"] = parameter.detach().contiguous()
            tensors[f"{i}.exp_avg"] = moments["exp_avg"]
            tensors[f"{i}.exp_avg_sq"] = moments["exp_avg_sq"]
        told = json.dumps({"fingerprint": self.fingerprint, "steps": done})
        scratch = self.path.with_name(f"{self.path.name}.new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, scratch, metadata={"training": told})
            os.replace(scratch, self.path)  # noqa: PTH105 - atomic
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                scratch.unlink()
            message = f"The checkpoint {self.path.name} cannot be written: {error}."
            raise StorageFull(message) from error
        self._written_at = time.monotonic()
