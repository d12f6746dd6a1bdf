"""`manage.py demo_job`: one composition through the real queue and a real worker, and its table.

The task is to find the vehicle among five words; no demo adapter knows vehicles. What succeeded
once is only printed again. The command waits for the work, it never does it itself.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from composer.examples import Example, parse_examples
from marketplace.accounts.models import User
from marketplace.catalogue.models import Adapter, BaseModel, Revision
from marketplace.compositions.models import CompositionJob
from marketplace.compositions.services import (
    CompositionError,
    CompositionRequest,
    start_composition,
)

DEMO = Path(settings.BASE_DIR) / "marketplace" / "demo" / "examples"
OWNER = "demo"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
TASK = "pick_vehicle"
KEY = "demo-job-"
FIT_ROWS = 5
PICK_UP_SECONDS = 60
POLL_SECONDS = 0.25
State = CompositionJob.State
PHASES = {
    "": "waiting for a worker",
    "loading": "loading the base model",
    "screening": "screening adapters",
    "searching": "searching weights",
    "merging": "merging",
    "scoring": "answering held-out rows",
    "writing": "writing the adapter",
}


class Command(BaseCommand):
    """Run the demo composition, or print the one that is there."""

    help = "Compose the demo task through queue and worker, and print the scores."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How long to wait for a worker, and whether to run once more."""
        parser.add_argument("--wait", type=float, default=PICK_UP_SECONDS, metavar="SECONDS")
        parser.add_argument("--again", action="store_true", help="run it even if it is done")

    def handle(self, *_: Any, wait: float, again: bool, **__: Any) -> None:
        """Find or start the job, wait for its end, print its table."""
        owner = User.objects.filter(username=OWNER).first()
        base = BaseModel.objects.filter(name=BASE, state=BaseModel.State.READY).first()
        if owner is None or base is None:
            raise CommandError("The demo catalogue is missing. Run manage.py seed_demo first.")
        jobs = CompositionJob.objects.owned_by(owner).filter(idempotency_key__startswith=KEY)
        done = None if again else jobs.filter(state=State.SUCCEEDED).first()
        job = done or jobs.active().first() or self._start(owner, base, jobs.count() + 1)
        if not job.is_finished:
            self._watch(job, wait)
        self._print(job)

    def _start(self, owner: User, base: BaseModel, number: int) -> CompositionJob:
        request = CompositionRequest(
            owner=owner,
            revisions=_list_revisions(owner, base),
            rows=_read_rows("fewshot")[:FIT_ROWS],
            held_out=_read_rows("test"),
            title=TASK,
            idempotency_key=f"{KEY}{number}",
            options={"selection": "screened", "seed": 42, "n_candidates": 8},
        )
        try:
            return start_composition(request)
        except CompositionError as error:
            raise CommandError(f"The demo job could not be started: {error}") from None

    def _watch(self, job: CompositionJob, wait: float) -> None:
        console = Console(file=sys.stderr)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
        )
        give_up = time.monotonic() + wait
        with Progress(*columns, console=console, transient=True) as bars:
            bar = bars.add_task(PHASES[""], total=None)
            while not job.is_finished:
                time.sleep(POLL_SECONDS)
                job.refresh_from_db()
                bars.update(
                    bar,
                    description=PHASES.get(job.phase, job.phase),
                    completed=job.phase_done,
                    total=job.phase_total,
                )
                if job.state == State.RUNNING:
                    give_up = time.monotonic() + wait
                elif time.monotonic() > give_up and not job.is_finished:
                    raise CommandError(
                        f"No worker took the job within {wait:.0f} seconds. Is one running? "
                        "./dev up starts one; by hand: celery -A marketplace worker -B"
                    )

    def _print(self, job: CompositionJob) -> None:
        if job.state != State.SUCCEEDED:
            causes = " ".join(text for text in (job.error, job.error_fix) if text)
            raise CommandError(f"The demo job ended as {job.state}. {causes}".strip())
        report = job.report or {}
        console = Console(width=100)
        console.print(_make_table(report))
        verdict = report.get("verdict", {})
        console.print(f"[bold]{verdict.get('headline', '')}[/] {verdict.get('detail', '')}")
        console.print(f"The job's page: {settings.PUBLIC_URL}{job.get_absolute_url()}", style="dim")


def _list_revisions(owner: User, base: BaseModel) -> list[Revision]:
    """Return the demo's own adapters, so that the table is the same on every shelf."""
    adapters = Adapter.objects.visible_to(owner).filter(owner=owner, base_model=base)
    trained = adapters.filter(kind=Adapter.Kind.TRAINED).select_related("latest").order_by("pk")
    return [adapter.latest for adapter in trained if adapter.latest]


def _read_rows(part: str) -> list[Example]:
    return list(parse_examples((DEMO / f"{TASK}.{part}.jsonl").read_text(encoding="utf-8")))


def _make_table(report: dict[str, Any]) -> Table:
    table = Table(
        title=f"{TASK}: {report.get('n_fit')} rows to fit, {report.get('n_held_out')} held out",
        title_justify="left",
    )
    table.add_column("Method")
    for heading in ("Right", "Score", "95 % interval", "Loss", "Loss on fit rows"):
        table.add_column(heading, justify="right")
    winner = report.get("verdict", {}).get("winner")
    for row in report.get("rows", []):
        table.add_row(*_cells(row), style="bold" if row["method"] == winner else "")
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    shown = row.get("held_out") or row["fit"]
    low, high = (round(100 * edge) for edge in shown["interval"])
    correct = shown.get("correct")
    return [
        row["label"],
        "-" if correct is None else f"{correct}/{shown['n']}",
        f"{shown['score']:.0%}",
        f"{low}-{high}",
        _loss(shown),
        _loss(row["fit"]),
    ]


def _loss(score: dict[str, Any]) -> str:
    return "-" if score.get("loss") is None else f"{score['loss']:.2f}"
