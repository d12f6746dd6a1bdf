"""Say before the start what a job will cost: time and memory.

Time is the median of the seconds per unit of work of the newest finished jobs on the same base
model; without any there is no figure, and the form says so. Memory is reckoned from the sizes of
the base, the candidates and a batch of rows, with figures that were measured on real runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from django.db.models import Count

from composer.examples import ExampleSplit
from marketplace.catalogue.models import BaseModel, Revision
from marketplace.compositions.models import CompositionJob
from marketplace.compositions.optimizers import GRADIENT

RECENT = 20
# What a step with gradients takes in evaluations of a population: 4.1 to 6.2 were measured.
STEP = 5
# A quick LoRA takes 25 steps alone and 25 on top of the composition.
QUICK_LORA_EVALUATIONS = 2 * 25 * STEP
# The weights' own gradients are charged 3 evaluations a step, whatever they take.
CHARGED = 3

_MIB = 1024**2
# A worker that has loaded its libraries and no base yet.
RUNTIME_BYTES = 640 * _MIB
# What computing takes beside the figures below: logits, one block in float32, scraps of the heap.
WORK_BYTES = 160 * _MIB
# Copies of the layers that candidates change are kept up to this much.
FOLDED_BYTES = 512 * _MIB
# Tokens of one forward pass, and of one step of training.
BATCH_TOKENS, STEP_TOKENS = 2048, 1024
# Texts have about so many characters a token; fewer would be more memory.
TOKEN_CHARACTERS = 3
# Layers stacked for one pass of screening hold at most about so many ranks.
STACKED_RANKS = 128


@dataclass(frozen=True)
class Plan:
    """A job that is to be estimated: what it is made of, and which work was asked for."""

    pool: int
    budget: int
    rows: int
    n_candidates: int = 8
    prompting: bool = False
    quick_lora: bool = False
    gradient: bool = False
    dtype: str = CompositionJob.Dtype.AUTO
    parameters: int = 0  # of the largest adapter
    rank: int = 0  # of the same
    paths: tuple[str, ...] = ()  # the layers it changes
    fit_tokens: int = 0  # of all fit rows together

    @classmethod
    def of(
        cls,
        options: Mapping[str, Any],
        pool: Sequence[Revision],
        split: ExampleSplit | None,
        *,
        is_searched: bool = True,
    ) -> Plan:
        """Read it off a request that was checked; what it leaves out is a job's default."""
        draft = CompositionJob(**options)
        largest = max(pool, key=lambda item: item.parameter_count or 0, default=None)
        summary = largest.adapter_summary if largest else None
        fit = split.fit if split else ()
        return cls(
            pool=len(pool),
            budget=draft.budget if is_searched else 1,
            rows=len(split.fit) + len(split.held_out) if split else 0,
            n_candidates=draft.n_candidates,
            prompting=draft.prompting,
            quick_lora=draft.quick_lora,
            gradient=is_searched and draft.optimizer == GRADIENT,
            dtype=draft.dtype,
            parameters=(largest.parameter_count or 0) if largest else 0,
            rank=(largest.rank or 0) if largest else 0,
            paths=tuple(summary.modules) if summary else (),
            fit_tokens=sum(len(row.input) + len(row.output) for row in fit) // TOKEN_CHARACTERS,
        )


@dataclass(frozen=True)
class Estimate:
    """What a job will do; a figure is None where nothing is known to reckon it from."""

    screening: int
    evaluations: int
    answers: int
    methods: int
    queued: int
    seconds: float | None
    lora_seconds: float | None  # of it, what a quick LoRA takes or would take
    lora_evaluations: int
    memory: int | None  # bytes that the worker holds at most


def estimate(base: BaseModel | None, plan: Plan) -> Estimate:
    """Count the work of a job and reckon its time and memory."""
    pace = _seconds_per_unit(base) if base else None
    work = _work(plan)
    return Estimate(
        screening=plan.pool,
        evaluations=plan.budget,
        answers=plan.rows,
        methods=4 + plan.prompting + plan.quick_lora,
        queued=CompositionJob.objects.active().count(),
        seconds=None if pace is None else pace * work,
        lora_seconds=None if pace is None else pace * QUICK_LORA_EVALUATIONS,
        lora_evaluations=QUICK_LORA_EVALUATIONS,
        memory=_memory(base, plan) if base else None,
    )


def _work(plan: Plan) -> float:
    """One unit is one forward pass over the fit rows; an answer costs about as much per row."""
    search = plan.budget * (STEP / CHARGED if plan.gradient else 1.0)
    trained = QUICK_LORA_EVALUATIONS if plan.quick_lora else 0
    return plan.pool + search + trained + 4.0 * plan.rows / 5


def _seconds_per_unit(base: BaseModel) -> float | None:
    jobs = (
        CompositionJob.objects.filter(
            base_model=base, state=CompositionJob.State.SUCCEEDED, started_at__isnull=False
        )
        .annotate(
            n_pool=Count("ingredients", distinct=True), n_rows=Count("examples", distinct=True)
        )
        .filter(n_rows__gt=0)  # forgotten rows would make the job look slow
        .order_by("-finished_at")
        .only(
            "started_at",
            "finished_at",
            "evaluations_spent",
            "optimizer",
            "quick_lora",
            "hand_weights",
        )
    )
    paces = [job.took.total_seconds() / _work(_done(job)) for job in jobs[:RECENT] if job.took]
    return median(paces) if paces else None


def _done(job: Any) -> Plan:
    """Return what a finished job has done, as the plan that would have been right."""
    return Plan(
        pool=job.n_pool,
        budget=job.evaluations_spent,
        rows=job.n_rows,
        quick_lora=job.quick_lora,
        gradient=job.is_searched and job.optimizer == GRADIENT,
    )


def _memory(base: BaseModel, plan: Plan) -> int | None:
    """Return the bytes at the peak: libraries and base, and the more of loading and computing."""
    if not base.parameter_count:
        return None
    is_half = plan.dtype != CompositionJob.Dtype.FLOAT32
    size = 2 if is_half else 4
    # A GGUF is unpacked in float32 before it becomes what is held.
    is_unpacked = is_half and base.source_kind == BaseModel.SourceKind.GGUF_PACKAGE
    loading = base.parameter_count * 4 if is_unpacked else 0
    # Screening stacks whole groups of the pool, the search its candidates.
    group = max(plan.n_candidates, STACKED_RANKS // max(1, plan.rank))
    stacked = min(plan.pool, group) * plan.parameters * 4
    computing = WORK_BYTES + stacked + _pass_bytes(base, plan, size)
    return RUNTIME_BYTES + base.parameter_count * size + max(loading, computing)


def _pass_bytes(base: BaseModel, plan: Plan, size: int) -> int:
    """Return what one pass takes: copies of layers forward, or what a backward pass keeps."""
    table: dict[str, tuple[int, int]] = base.module_table
    # The head only sees answer positions.
    sizes = [size for path, size in table.items() if "." in path]
    adapted = [table[path] for path in plan.paths if path in table]
    copies = min(FOLDED_BYTES, sum(wide * high for wide, high in adapted) * size)
    tokens = min(BATCH_TOKENS, plan.fit_tokens * plan.n_candidates)
    forward = copies + tokens * max((wide + high for wide, high in sizes), default=0) * 8
    if not (plan.quick_lora or plan.gradient):
        return forward
    # A backward pass keeps the inputs and outputs of all layers, and as much again between them.
    tokens = min(STEP_TOKENS, plan.fit_tokens)
    return max(forward, 2 * tokens * sum(wide + high for wide, high in sizes) * size)
