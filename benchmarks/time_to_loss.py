"""How soon the default search is below the loss that LoraHub's own method ends with.

For each target: `lorahub_learning` in float32 with random candidates and 40 evaluations, timed from
loading to its result; then `compose` with its defaults, screening and loading counted, until its
best fit loss is below that one, both scored alike; a candidate that screening scores alone is a
weight vector too, and the evaluations are counted with those. SmolLM2-135M; see `zoo`.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality_cases import LORAHUB_CANDIDATES
from benchmarks.reporting import BenchReport, make_parser, run_in_child
from benchmarks.zoo import BASE, Target, Zoo, read_zoo
from composer import lorahub_learning
from composer.adapter import LoraAdapter
from composer.base_model import BaseModelSource, load_base
from composer.composing import ComposeRequest, compose
from composer.errors import Stopped
from composer.progress import CandidateScored, EvaluationScored, PhaseStarted, Progress
from composer.scoring import Scorer, encode_examples
from composer.selection import preselect
from composer.stacking import AdapterStack

BUDGET = 40
FIT_ROWS = 5
QUICK_TARGETS = 2


def main() -> int:
    """Run both on every target, each in a process of its own."""
    options = _options()
    zoo = read_zoo(options.zoo)
    targets = zoo.only(options.targets).targets if options.targets else zoo.targets
    if options.quick:
        targets = targets[:QUICK_TARGETS]
    report = BenchReport("time_to_loss", options)
    with tempfile.TemporaryDirectory() as folder:
        run_in_child("benchmarks.time_to_loss:save_base", folder=folder)
        rows = [_run_target(options, target, folder) for target in targets]
    report.add_table(f"{FIT_ROWS} rows: seconds until the fit loss is below lorahub's", rows)
    ratios = [row["part"] if row["reached"] else math.inf for row in rows]
    report.add_goal(
        f"time to lorahub's final loss, part of its time, median of {len(rows)} targets",
        statistics.median(ratios),
        at_most=0.1,
    )
    report.add_goal(
        "targets on which the default gets below it, part",
        float(np.isfinite(ratios).mean()),
        at_least=1,
    )
    return report.finish()


def _options() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--zoo", type=Path, metavar="FOLDER", help="adapters and targets")
    parser.add_argument("--targets", nargs="*", metavar="NAME", help="only these; all unless said")
    return parser.parse_args()


def _run_target(options: argparse.Namespace, target: Target, base: str) -> dict[str, Any]:
    zoo = str(options.zoo) if options.zoo else None
    theirs = run_in_child(
        "benchmarks.time_to_loss:run_lorahub", zoo=zoo, target=target.name, base=base
    )
    ours = run_in_child(
        "benchmarks.time_to_loss:run_default",
        zoo=zoo,
        target=target.name,
        base=base,
        below=theirs["loss"],
    )
    return {
        "target": target.name,
        "lorahub's loss": theirs["loss"],
        "lorahub s": theirs["seconds"],
        "default's loss": ours["loss"],
        "default s": ours["seconds"],
        "evaluations": ours["evaluations"],
        "reached": ours["reached"],
        "part": ours["seconds"] / theirs["seconds"],
    }


def save_base(folder: str) -> dict[str, Any]:
    """Write the base as a folder of transformers, which both programs load."""
    base = load_base(BASE, dtype="float32")
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return {}


def run_lorahub(zoo: str | None, target: str, base: str) -> dict[str, Any]:
    """Run the faithful mode; return its seconds and the fit loss of its result, scored by us."""
    chosen = read_zoo(Path(zoo) if zoo else None)
    rows = _fit_rows(chosen, target)
    members = preselect(chosen.pool, rows, "random", n_candidates=LORAHUB_CANDIDATES, seed=42)
    began = time.perf_counter()
    weights, *_ = lorahub_learning(
        [str(member.folder) for member in members],
        [row.input for row in rows],
        [row.output for row in rows],
        BUDGET,
        model_name_or_path=base,
    )
    seconds = time.perf_counter() - began
    loaded = load_base(BaseModelSource("folder", base), dtype="float32")
    adapters = [LoraAdapter.load(item.folder, loaded.module_table) for item in members]
    with AdapterStack(loaded, adapters, space="factor") as stack:
        scorer = Scorer(loaded, encode_examples(loaded, rows))
        loss = scorer.losses(stack, np.asarray(weights, dtype=np.float64)[None]).mean()
    return {"seconds": seconds, "loss": float(loss)}


def run_default(zoo: str | None, target: str, base: str, below: float) -> dict[str, Any]:
    """Compose by default until the fit loss is below this one; the report is not waited for."""
    chosen = read_zoo(Path(zoo) if zoo else None)
    watch = _Watch(below)
    with tempfile.TemporaryDirectory() as scratch:
        request = ComposeRequest(
            base=BaseModelSource("folder", base),
            pool=chosen.pool,
            examples=_fit_rows(chosen, target),
            output_folder=Path(scratch) / "composed",
            n_fit=FIT_ROWS,
        )
        watch.began = time.perf_counter()
        with contextlib.suppress(Stopped):
            compose(request, watch.hear, lambda: watch.ended)
    return {
        "seconds": watch.seconds,
        "loss": watch.loss,
        "evaluations": watch.evaluations,
        "reached": watch.loss < below,
    }


class _Watch:
    """Listens to a composition and ends it where the loss is low enough, or the search is over."""

    def __init__(self, below: float) -> None:
        self.below = below
        self.began = self.seconds = 0.0
        self.loss = math.inf
        self.evaluations = 0
        self.ended = False

    def hear(self, event: Progress) -> None:
        if self.ended:
            return
        self.seconds = time.perf_counter() - self.began
        if isinstance(event, EvaluationScored | CandidateScored):
            self.evaluations += 1
            loss = event.loss if isinstance(event, CandidateScored) else event.fit_loss
            self.loss = min(self.loss, loss)
            self.ended = self.loss < self.below
        elif isinstance(event, PhaseStarted) and event.phase == "merging":
            self.ended = True


def _fit_rows(zoo: Zoo, target: str) -> tuple[Any, ...]:
    return zoo.only([target]).targets[0].draw(FIT_ROWS, 0)


if __name__ == "__main__":
    sys.exit(main())
