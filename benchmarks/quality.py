"""Scores on rows that no search has seen: every method, on tasks that no adapter was trained for.

Zero-shot, prompting, the best single adapter, means, LoraHub with random candidates, every search
of ours, a LoRA trained on the same rows alone and in a composition; SmolLM2-135M. Defaults were
chosen on half of the targets, by rows of their few-shot files; test rows are only reported.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.quality_cases import (
    BRIEF,
    DEFAULT_METHOD,
    LORAHUB,
    PROMPTING,
    QUICK_ALONE,
    SEARCHES,
    SLOW,
    WITH_LORA,
    ZERO_SHOT,
    Row,
)
from benchmarks.reporting import BenchReport, make_parser, run_in_child
from benchmarks.zoo import Target, read_zoo

# Rounds of (fit rows, seed), the most telling first; a round that cannot end in time is left out.
ROUNDS = ((5, 0), (16, 0), (5, 1), (16, 1))
QUICK_TARGETS = 2
MORE_ROWS_COST = 1.6  # how much longer a round with 16 rows takes than one with 5


def main() -> int:
    """Run the rounds that the time allows and report."""
    options = _options()
    zoo = read_zoo(options.zoo)
    targets = zoo.only(options.targets).targets if options.targets else zoo.targets
    if options.quick:
        targets = targets[:: max(1, len(targets) // QUICK_TARGETS)][:QUICK_TARGETS]
    report = BenchReport("quality", options)
    rows = _run_rounds(options, targets)
    done = sorted({(row["rows"], row["seed"]) for row in rows})
    listed = ", ".join(target.name for target in targets)
    print(f"{zoo.title}; {listed}; rounds (rows, seed): {done}", file=sys.stderr)
    for n_rows in sorted({row["rows"] for row in rows}):
        part = [row for row in rows if row["rows"] == n_rows]
        seeds = len({row["seed"] for row in part})
        names = {row["target"] for row in part}
        what = f"{len(names)} targets, {seeds} draws of the rows, {options.test_rows} test rows"
        report.add_table(f"{n_rows} rows: means of {what}", _means(part))
        report.add_table(f"{n_rows} rows: score by target", _by_target(part))
        _add_goals(report, part, n_rows)
    _add_search_time(report, options, targets if options.quick else zoo.targets)
    return report.finish()


def _options() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--zoo", type=Path, metavar="FOLDER", help="adapters and targets")
    parser.add_argument("--targets", nargs="*", metavar="NAME", help="only these; all unless said")
    parser.add_argument("--test-rows", type=int, default=32, metavar="N", help="of each target")
    parser.add_argument(
        "--minutes", type=float, default=17, help="no round begins that would end later"
    )
    parser.add_argument(
        "--rows", nargs="*", type=int, metavar="N", help="only rounds of so many rows to fit on"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FILE",
        help="write every round's rows into it; rounds that it holds are not run again",
    )
    parser.add_argument("--brief", action="store_true", help=f"of the searches {', '.join(BRIEF)}")
    options = parser.parse_args()
    if options.quick:
        options.test_rows = min(options.test_rows, 12)
    return options


def _run_rounds(options: argparse.Namespace, targets: Sequence[Target]) -> list[Row]:
    began, longest = time.monotonic(), 0.0
    kept = options.keep is not None and options.keep.exists()
    rows: list[Row] = json.loads(options.keep.read_text()) if kept else []
    done = {(row["rows"], row["seed"]) for row in rows}
    for n_rows, seed in ROUNDS[:1] if options.quick else ROUNDS:
        if (n_rows, seed) in done or (options.rows and n_rows not in options.rows):
            continue
        factor = MORE_ROWS_COST if n_rows > ROUNDS[0][0] else 1.0
        cost = longest * factor
        if time.monotonic() - began + cost > options.minutes * 60:
            continue
        round_began = time.monotonic()
        slow = SLOW if options.quick or seed else ()
        searches = BRIEF if options.brief else [name for name in SEARCHES if name not in slow]
        rows += _run_round(options, targets, n_rows, seed, searches)
        if options.keep is not None:
            options.keep.write_text(json.dumps(rows))
        longest = max(longest, (time.monotonic() - round_began) / factor)
    return rows


def _run_round(
    options: argparse.Namespace,
    targets: Sequence[Target],
    n_rows: int,
    seed: int,
    searches: Sequence[str],
) -> list[Row]:
    """Share the targets out among as many processes as there are cores, each on one of them."""
    names = [target.name for target in targets]
    count = min(len(os.sched_getaffinity(0)), len(names))

    def run(part: Sequence[str]) -> list[Row]:
        answer = run_in_child(
            "benchmarks.quality_cases:run_cases",
            zoo=str(options.zoo) if options.zoo else None,
            targets=part,
            n_rows=n_rows,
            seed=seed,
            test_rows=options.test_rows,
            searches=searches,
        )
        rows: list[Row] = answer["rows"]
        return rows

    with ThreadPoolExecutor(count) as pool:
        return [
            row for rows in pool.map(run, [names[i::count] for i in range(count)]) for row in rows
        ]


def _methods(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


def _mean(rows: Iterable[Row], method: str, column: str = "score") -> float:
    return statistics.fmean(row[column] for row in rows if row["method"] == method)


def _means(rows: Sequence[Row]) -> list[Row]:
    table = []
    reported = [row for row in rows if row["half"] == "report"] or rows
    for method in _methods(rows):
        mine = [row for row in rows if row["method"] == method]
        table.append(
            {
                "method": method,
                "score": _mean(rows, method),
                "score, targets not chosen on": _mean(reported, method),
                "loss": _mean(rows, method, "loss"),
                "seconds on one core": statistics.median(row["seconds"] for row in mine),
                "evaluations": round(statistics.fmean(row["evaluations"] for row in mine)),
            }
        )
    return table


def _by_target(rows: Sequence[Row]) -> list[Row]:
    """Return one line a target, for the methods that the goals speak of."""
    shown = (ZERO_SHOT, PROMPTING, "best single", LORAHUB, DEFAULT_METHOD, QUICK_ALONE, WITH_LORA)
    return [
        {"target": target, "half": next(row["half"] for row in rows if row["target"] == target)}
        | {name: _mean([row for row in rows if row["target"] == target], name) for name in shown}
        for target in dict.fromkeys(row["target"] for row in rows)
    ]


def _add_goals(report: BenchReport, rows: Sequence[Row], n_rows: int) -> None:
    default, at = _mean(rows, DEFAULT_METHOD), f"{n_rows} rows:"
    report.add_goal(
        f"{at} default beside prompting, points", default - _mean(rows, PROMPTING), at_least=0
    )
    report.add_goal(
        f"{at} default beside lorahub, points", default - _mean(rows, LORAHUB), at_least=6
    )
    gain = _mean(rows, WITH_LORA) - _mean(rows, QUICK_ALONE)
    report.add_goal(f"{at} with the quick LoRA beside it alone, points", gain, at_least=3)
    worst = min(line[DEFAULT_METHOD] - line[ZERO_SHOT] for line in _by_target(rows))
    report.add_goal(f"{at} worst target beside zero-shot, points", worst, at_least=-2)


def _add_search_time(
    report: BenchReport, options: argparse.Namespace, targets: Sequence[Target]
) -> None:
    """Time the default search on every target: no test row is looked at."""
    answer = run_in_child(
        "benchmarks.quality_cases:time_search",
        zoo=str(options.zoo) if options.zoo else None,
        targets=[target.name for target in targets],
        n_rows=ROUNDS[0][0],
    )
    report.add_goal(
        f"seconds to screen {answer['pool']} and search 8 on {ROUNDS[0][0]} rows, all cores, "
        f"median of {len(targets)} targets",
        statistics.median(answer["seconds"]),
        at_most=10,
    )


if __name__ == "__main__":
    sys.exit(main())
