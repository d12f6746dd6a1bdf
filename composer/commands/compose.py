"""`compose`: run the whole method with a progress bar and print the comparison."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from composer.base_model import BaseModelSource, parse_source
from composer.commands.files import find_adapters, read_examples
from composer.commands.output import Output
from composer.composing import ComposeRequest, Composition, compose
from composer.errors import SearchError
from composer.progress import (
    AnswersScored,
    CandidateScored,
    EvaluationScored,
    LogLine,
    PhaseStarted,
    TrainingStepped,
)
from composer.progress import Progress as ProgressEvent
from composer.report import Report, ReportRow, Score
from composer.selection import PoolMember

CARD_NAME = "README.md"


def run(args: argparse.Namespace, output: Output) -> int:
    """Compose and print the report."""
    request = _request(args)
    with _Bars(output) as bars:
        composition = compose(request, bars.update)
    output.show(_data(composition), _weights(composition), report_table(composition.report))
    if not output.as_json:
        verdict = composition.report.verdict
        output.console.print(f"{verdict.headline} {verdict.detail} {verdict.offer}", markup=False)
        sanity = composition.report.sanity
        for note in sanity.notes if sanity else ():
            output.console.print(note, markup=False)
        output.console.print(f"Evaluations: {_spent(composition)}.", markup=False)
        output.console.print(f"Written to {composition.folder}", markup=False)
    return 0


def source_of(args: argparse.Namespace) -> BaseModelSource:
    """Return the base that the arguments name."""
    return replace(parse_source(args.base), name=args.base_name)


def report_table(report: Report) -> Table:
    """Draw the comparison: one row a method; a long label is folded, a figure never is."""
    unit = "ROUGE-L" if report.metric == "rougeL" else "exact match"
    columns = {name: [draw(row) for row in report.rows] for name, draw in _columns(report).items()}
    table = Table(
        Column("method", overflow="fold"),
        *(Column(name, no_wrap=True) for name in columns),
        title=f"{unit} and loss per row",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for i, row in enumerate(report.rows):
        style = "bold" if row.method == report.verdict.winner else None
        table.add_row(row.label, *(cells[i] for cells in columns.values()), style=style)
    return table


def _columns(report: Report) -> dict[str, Callable[[ReportRow], str]]:
    """Name the columns and say how each is drawn; those that would be empty are left out."""

    def judged(row: ReportRow) -> Score | None:
        return row.held_out if report.n_held_out else row.fit

    columns: dict[str, Callable[[ReportRow], str]] = {
        "held-out" if report.n_held_out else "fit": lambda row: _figure(judged(row)),
        "95 %": lambda row: _interval(judged(row)),
    }
    if any(row.fit.rouge_l is not None for row in report.rows):
        other = "exact" if report.metric == "rougeL" else "ROUGE-L"
        columns[other] = lambda row: _other_figure(judged(row), report.metric)
    columns["loss"] = lambda row: _loss(judged(row))
    if report.folds:
        columns[f"{report.folds} folds"] = lambda row: _figure(row.cross_validated)
    if report.n_held_out:
        columns["fit"] = lambda row: _figure(row.fit)
        columns["fit loss"] = lambda row: _loss(row.fit)
    return columns


def _request(args: argparse.Namespace) -> ComposeRequest:
    request = ComposeRequest(
        base=source_of(args),
        pool=tuple(_member(name, path) for name, path in find_adapters(args.adapters).items()),
        examples=read_examples(args.examples),
        held_out=read_examples(args.held_out) if args.held_out else None,
        output_folder=args.out,
        merge_method=args.method,
        n_candidates=args.candidates,
        hand_weights=_hand_weights(args.weight),
        **{name: getattr(args, name) for name in _SAME_NAMES},
    )
    return replace(request, optimizer=args.optimizer) if args.optimizer else request


_SAME_NAMES = (
    "prompt_format",
    "selection",
    "similarity",
    "embedding_model",
    "num_workers",
    "weight_blocks",
    "budget",
    "seed",
    "n_fit",
    "weight_bound",
    "l1_penalty",
    "prior",
    "prior_penalty",
    "svd_rank",
    "prompting",
    "folds",
    "quick_lora",
    "dtype",
    "device",
    "checkpoint",
    "max_new_tokens",
    "exact_case",
    "metric",
)


def _member(name: str, folder: Path) -> PoolMember:
    card = folder / CARD_NAME
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    return PoolMember(name, folder, card_text=text)


def _hand_weights(pairs: list[str]) -> dict[str, float] | None:
    if not pairs:
        return None
    weights = {}
    for pair in pairs:
        name, _, value = pair.rpartition("=")
        try:
            weights[name] = float(value)
        except ValueError as error:
            message = f"--weight {pair} is not NAME=NUMBER."
            raise SearchError(message) from error
    return weights


class _Bars:
    """One progress bar a phase, on standard error."""

    def __init__(self, output: Output) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=output.progress_console,
        )
        self._task = self._bars.add_task("checking", total=None, note="")

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def update(self, event: ProgressEvent) -> None:
        """Draw an event."""
        bars, task = self._bars, self._task
        match event:
            case PhaseStarted():
                bars.stop_task(task)
                self._task = bars.add_task(event.phase, total=event.total, note=event.message)
            case CandidateScored():
                bars.update(task, completed=event.done, note=f"{event.name} {event.loss:.3f}")
            case EvaluationScored():
                bars.update(task, completed=event.number)
                if event.is_best:
                    bars.update(task, note=f"best loss {event.fit_loss:.3f}")
            case TrainingStepped():
                bars.update(task, completed=event.done, note=f"loss {event.loss:.3f}")
            case AnswersScored():
                bars.update(task, completed=event.done, total=event.total, note=event.method)
            case LogLine():
                bars.console.print(event.text, markup=False)
            case _:
                pass


def _data(composition: Composition) -> dict[str, object]:
    return {
        "folder": str(composition.folder),
        "weights": dict(zip(composition.names, composition.weights, strict=True)),
        "optimizer": composition.optimizer_resolved,
        "evaluations": composition.evaluations_spent,
        "svd_error": composition.svd_error,
        "report": composition.report.to_dict(),
        "recipe": composition.recipe,
    }


def _spent(composition: Composition) -> str:
    parts = composition.recipe["evaluations"]
    words = {"alone": "of adapters alone", "search": "of the search", "folds": "of the folds"}
    return ", ".join(f"{count} {words.get(name, name)}" for name, count in parts.items())


def _weights(composition: Composition) -> Table:
    table = Table(Column("adapter", overflow="fold"), Column("weight", no_wrap=True))
    for name, weight in zip(composition.names, composition.weights, strict=True):
        table.add_row(name, f"{weight:+.3f}")
    return table


def _figure(score: Score | None) -> str:
    if score is None:
        return ""
    return f"{score.score:.3f}" if score.correct is None else f"{score.correct}/{score.n}"


def _interval(score: Score | None) -> str:
    return "" if score is None else f"{score.interval[0]:.2f}-{score.interval[1]:.2f}"


def _other_figure(score: Score | None, metric: str) -> str:
    """Return the measure that is not the metric, where answers are long."""
    if score is None or score.rouge_l is None:
        return ""
    return f"{score.exact}/{score.n}" if metric == "rougeL" else f"{score.rouge_l:.3f}"


def _loss(score: Score | None) -> str:
    return "" if score is None or score.loss is None else f"{score.loss:.3f}"
