"""How fast a search is: beside the `lorahub` package, and beside the bare forward pass.

T5 models of FLAN-T5's shapes, rank 16 on q and v, 20 adapters, 40 evaluations, 5 rows of about 150
tokens. Evaluations are timed in one process, in turn; loading, whole runs and memory in processes
of their own. The floor is the plain model of transformers on the same rows in the same dtype.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import plots
from benchmarks.reporting import BenchReport, Row, read_options, run_in_child, time_in_turn

N_ADAPTERS = 20
BUDGET = 40
REPEATS = 5
GROWTH = (5, 20, 100, 200)
POPULATIONS = (1, 8, 32)
RUNS = ("lorahub", "composer.lorahub", "composer default")
FLOOR_GOAL = 1.05
HERE = "benchmarks.search_speed"

Seconds = dict[str, float]


def main() -> int:
    """Measure every shape, then growth; print, and write what was asked for."""
    options = read_options(__doc__)
    report = BenchReport("search_speed", options)
    shapes = ["small"] if options.quick else ["small", "base"]
    with tempfile.TemporaryDirectory() as scratch:
        for shape in shapes:
            folder = str(Path(scratch) / shape)
            run_in_child(f"{HERE}:build_files", folder=folder, shape=shape)
            seconds = run_in_child(f"{HERE}:time_evaluations", folder=folder, repeats=REPEATS)
            report_evaluations(report, shape, seconds["seconds"])
            repeats = 3 if options.quick else REPEATS
            report_runs(report, shape, measure_runs(folder, repeats))
        folder = str(Path(scratch) / shapes[0])
        report_growth(report, folder, quick=options.quick)
    code = report.finish()
    if options.docs:
        plots.show_in_document(plots.draw_search_speed(report.to_dict()), report.name)
    return code


# ---- what is reported ------------------------------------------------------------------------


def report_evaluations(report: BenchReport, shape: str, seconds: Seconds) -> None:
    """Add the table of one evaluation, and its goals."""
    lorahub = seconds["lorahub"]
    rows: list[Row] = []
    for name, took in seconds.items():
        dtype = "bfloat16" if "bfloat16" in name else "float32"
        floor = seconds[f"floor, {dtype}"]
        rows.append(
            {
                "what": name,
                "ms an evaluation": took * 1e3,
                "of the floor": took / floor,
                "of the base as composer loads it": took / seconds[f"composer's base, {dtype}"],
                "faster than lorahub": lorahub / took,
            }
        )
    report.add_table(f"One evaluation, {shape} shape", rows)
    ours = [row for row in rows if str(row["what"]).startswith("composer ")]
    for row in ours:
        report.add_goal(f"{shape}: {row['what']}: floor", row["of the floor"], at_most=FLOOR_GOAL)
    by_name = {row["what"]: row for row in rows}
    faithful = by_name["composer lorahub, float32"]["faster than lorahub"]
    report.add_goal(f"{shape}: faithful in float32 against lorahub", faithful, at_least=1.15)
    default = by_name[f"composer default, {_default_dtype()}"]["faster than lorahub"]
    target = 2.5 if shape == "small" else 4.0
    report.add_goal(f"{shape}: default against lorahub", default, at_least=target)


def report_runs(report: BenchReport, shape: str, runs: Mapping[str, list[dict[str, Any]]]) -> None:
    """Add the table of loading, whole runs and memory, and its goals."""

    def median(name: str, key: str) -> float:
        return float(statistics.median(run[key] for run in runs[name]))

    rows: list[Row] = [
        {
            "what": name,
            "load s": median(name, "load"),
            "search s": median(name, "search"),
            "whole run s": median(name, "whole"),
            "peak MB": median(name, "peak_bytes") / 1024**2,
            "evaluations": runs[name][0]["evaluations"],
        }
        for name in runs
    ]
    report.add_table(f"Whole runs from loading to the result, {shape} shape", rows)
    theirs, faithful, default = (row for row in rows)
    report.add_goal(
        f"{shape}: whole run, default against lorahub",
        theirs["whole run s"] / default["whole run s"],
        at_least=4,
    )
    for row in (faithful, default):
        what = f"{shape}: {row['what']}"
        report.add_goal(f"{what}: load", theirs["load s"] / row["load s"], at_least=8)
        report.add_goal(f"{what}: peak memory", row["peak MB"] / theirs["peak MB"], at_most=0.7)


def report_growth(report: BenchReport, folder: str, *, quick: bool) -> None:
    """Add the table of growth with the number of adapters and of vectors at once."""
    counts = (5, 200) if quick else GROWTH
    populations = (1, 8) if quick else POPULATIONS
    answer = run_in_child(
        f"{HERE}:time_growth",
        folder=folder,
        counts=counts,
        populations=populations,
        repeats=REPEATS,
    )
    seconds: dict[str, Seconds] = answer["seconds"]
    report.add_table(
        "ms an evaluation by number of adapters, small shape",
        [
            {"what": what, **{f"N = {count}": took[str(count)] * 1e3 for count in counts}}
            for what, took in seconds.items()
        ],
    )
    for what, took in seconds.items():
        # Ranks beyond a layer's width, all drawn anew, cost more than the layer: shown, no goal.
        if "concat, all weights" not in what:
            ratio = took[str(max(counts))] / took[str(min(counts))]
            report.add_goal(f"{what}: N = 200 beside N = 5", ratio, at_most=1.3)


# ---- what is measured, in processes of their own -----------------------------------------------


def build_files(folder: str, shape: str) -> dict[str, Any]:
    """Write the base, the adapters and the rows."""
    from benchmarks import t5_workload  # noqa: PLC0415 - the parent stays small

    t5_workload.build(Path(folder), shape, N_ADAPTERS)
    return {}


def time_evaluations(folder: str, repeats: int) -> dict[str, Any]:
    """Time one evaluation of every mode, the floors and lorahub, in turn."""
    from benchmarks import search_modes  # noqa: PLC0415

    with _quiet():
        work, per_call = search_modes.all_modes(Path(folder), N_ADAPTERS)
        runs = time_in_turn(work, repeats)
    return {"seconds": {name: statistics.median(runs[name]) / per_call[name] for name in runs}}


def time_growth(
    folder: str, counts: list[int], populations: list[int], repeats: int
) -> dict[str, Any]:
    """Time evaluations for several numbers of adapters, in turn."""
    from benchmarks import search_modes  # noqa: PLC0415

    work: dict[str, Callable[[], object]] = {}
    per_call: dict[str, int] = {}
    with _quiet():
        for count in counts:
            modes = search_modes.growing_modes(Path(folder), count, populations)
            for what, (call, n_vectors) in modes.items():
                work[f"{what}|{count}"] = call
                per_call[f"{what}|{count}"] = n_vectors
        runs = time_in_turn(work, repeats)
    seconds: dict[str, Seconds] = {}
    for name, took in runs.items():
        what, _, number = name.partition("|")
        seconds.setdefault(what, {})[number] = statistics.median(took) / per_call[name]
    return {"seconds": seconds}


def measure_runs(folder: str, repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Run every program in a process of its own, in turn, the order turned round every time."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    for number in range(repeats):
        for name in RUNS if number % 2 == 0 else reversed(RUNS):
            runs[name].append(run_in_child(f"{HERE}:whole_run", folder=folder, name=name))
    return runs


def whole_run(folder: str, name: str) -> dict[str, Any]:
    """Run one program from loading to its result; imports are done before the clock starts."""
    from benchmarks import search_runs  # noqa: PLC0415

    with _quiet(), tempfile.TemporaryDirectory() as scratch:
        program = search_runs.prepare(name, Path(folder), Path(scratch), BUDGET)
        began = time.perf_counter()
        marks = program()
        whole = time.perf_counter() - began
    return {
        "load": marks.loaded - began,
        "search": marks.searched - marks.loaded,
        "whole": whole,
        "evaluations": marks.evaluations,
    }


def _default_dtype() -> str:
    from composer.base_model import resolve_device, resolve_dtype  # noqa: PLC0415

    return str(resolve_dtype("auto", resolve_device("cpu"))).removeprefix("torch.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow what lorahub prints."""
    np.seterr(all="ignore")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


if __name__ == "__main__":
    sys.exit(main())
