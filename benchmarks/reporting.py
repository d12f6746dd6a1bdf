"""What every benchmark shares: options, timing, child processes, tables, goals, JSON, Markdown.

A benchmark is a module of this folder with a `main`; it fills one `BenchReport` and leaves the rest
to it. `python -m benchmarks.reporting FILE.json [--docs]` shows stored figures again.

    options = read_options(__doc__)                      # --json FILE, --quick, --docs
    report = BenchReport("search_speed", options)
    report.add_table("Seconds an evaluation", [{"what": "floor", "ms": 85.1}, ...])
    report.add_goal("default against lorahub", ratio, at_least=2.5)
    report.finish()                                      # prints; writes what was asked for
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parent.parent
DOCUMENT = PROJECT / "docs" / "benchmarks.md"
VERSIONS = ("torch", "transformers", "peft", "nevergrad", "numpy", "safetensors", "lorahub")
SHOWN_DIGITS = 4

Row = Mapping[str, Any]  # column -> text or number; all rows of a table have the same columns


@dataclass(frozen=True)
class Goal:
    """One mark and what was measured; `sense` says on which side of the target is good."""

    goal: str
    value: float
    target: float
    sense: str  # "at most" or "at least"
    met: bool


class BenchReport:
    """The figures of one benchmark: tables of rows, goals, the machine they were measured on."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        self.options = options
        self.tables: list[dict[str, Any]] = []
        self.goals: list[Goal] = []
        self._began = time.monotonic()

    def add_table(self, title: str, rows: Sequence[Row]) -> None:
        """Add a table; its columns are the keys of the first row."""
        self.tables.append({"title": title, "rows": [dict(row) for row in rows]})

    def add_goal(
        self,
        goal: str,
        value: float,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """Compare a figure with its mark: give one of `at_most` and `at_least`."""
        if at_most is not None:
            self.goals.append(Goal(goal, value, at_most, "at most", value <= at_most))
        elif at_least is not None:
            self.goals.append(Goal(goal, value, at_least, "at least", value >= at_least))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON: `rows` are those of all tables, each with its table's name."""
        return {
            "benchmark": self.name,
            "quick": bool(getattr(self.options, "quick", False)),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._began, 1),
            "machine": describe_machine(),
            "rows": [
                {"table": table["title"], **row} for table in self.tables for row in table["rows"]
            ],
            "tables": self.tables,
            "goals": [asdict(goal) for goal in self.goals],
        }

    def finish(self) -> int:
        """Print the tables and goals; write JSON and the document's section where asked to."""
        data = self.to_dict()
        print_report(data)
        if self.options.json:
            Path(self.options.json).write_text(f"{json.dumps(data, indent=1)}\n", encoding="utf-8")
        if self.options.docs:
            write_section(data)
        return 0


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark; a benchmark may add its own."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write rows, goals, machine and versions")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and smaller shapes")
    parser.add_argument(
        "--docs", action="store_true", help=f"put the tables into docs/{DOCUMENT.name}"
    )
    return parser


def read_options(description: str | None) -> argparse.Namespace:
    """Read the options that every benchmark has: `json`, `quick`, `docs`."""
    return make_parser(description).parse_args()


def median_seconds(
    work: Mapping[str, Callable[[], object]], *, repeats: int = 5, warm_ups: int = 1
) -> dict[str, float]:
    """Time several pieces of work side by side: in turn, so that a busy machine hurts all alike."""
    return {
        name: statistics.median(runs)
        for name, runs in time_in_turn(work, repeats, warm_ups).items()
    }


def time_in_turn(
    work: Mapping[str, Callable[[], object]], repeats: int, warm_ups: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of every repeat, by name."""
    for call in work.values():
        for _ in range(warm_ups):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, call in work.items():
            gc.collect()
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def run_in_child(function: str, **arguments: Any) -> dict[str, Any]:
    """Run `package.module:function(**arguments)` in a fresh process; arguments and answer are JSON.

    The answer is the function's dict with `peak_bytes` (of resident memory) and `process_seconds`.

    Raises:
        RuntimeError: with the child's last words, if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "benchmarks.reporting", "--child", function]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, json.dumps(arguments), str(answer)],
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"{function} failed:\n{done.stderr[-2000:]}")
        result: dict[str, Any] = json.loads(answer.read_text())
    return {**result, "process_seconds": seconds}


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory, threads and the versions of what was measured."""
    versions = {}
    for name in VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    except OSError:
        commit = ""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3, 1),
        "load_at_end": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "commit": commit,
        "versions": versions,
    }


def print_report(data: Mapping[str, Any]) -> None:
    """Print tables and goals for a person."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in data["tables"]:
        shown = Table(title=table["title"], title_justify="left")
        for column, value in table["rows"][0].items():
            shown.add_column(column, justify="left" if isinstance(value, str) else "right")
        for row in table["rows"]:
            shown.add_row(*map(_shown, row.values()))
        console.print(shown)
    goals = Table(title="Goals", title_justify="left")
    for column in ("goal", "value", "target", "met"):
        goals.add_column(column, justify="left" if column == "goal" else "right")
    for goal in data["goals"]:
        goals.add_row(*_goal_cells(goal))
    console.print(goals)
    console.print(_machine_line(data))


def render_markdown(data: Mapping[str, Any]) -> str:
    """Return the tables, the goals and the machine as Markdown."""
    parts = []
    for table in data["tables"]:
        columns = list(table["rows"][0])
        rows = [[_shown(value) for value in row.values()] for row in table["rows"]]
        parts.append(f"**{table['title']}**\n\n{_markdown_table(columns, rows)}")
    goals = [list(_goal_cells(goal)) for goal in data["goals"]]
    if goals:
        parts.append(_markdown_table(["goal", "value", "target", "met"], goals))
    parts.append(_machine_line(data))
    return "\n\n".join(parts)


def write_section(data: Mapping[str, Any], document: Path = DOCUMENT) -> None:
    """Replace what stands between the benchmark's two markers in the document.

    Raises:
        ValueError: if the document has no such markers.
    """
    begin, end = (f"<!-- {word} {data['benchmark']} -->" for word in ("begin", "end"))
    text = document.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{document.name} has no line {begin!r} followed by {end!r}.")
    section = f"{begin}\n{render_markdown(data)}\n{end}"
    document.write_text(f"{before}{section}{after}", encoding="utf-8")


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _goal_cells(goal: Mapping[str, Any]) -> tuple[str, str, str, str]:
    target = f"{goal['sense']} {_shown(goal['target'])}"
    return goal["goal"], _shown(goal["value"]), target, "yes" if goal["met"] else "no"


def _machine_line(data: Mapping[str, Any]) -> str:
    machine = data["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    quick = "a quick run, " if data["quick"] else ""
    return (
        f"{data['benchmark']}: {quick}{data['when']}, {data['seconds']:.0f} s; "
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"load {machine['load_at_end']} at the end; Python {machine['python']}, {versions}; "
        f"commit {machine['commit'] or 'unknown'}."
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{SHOWN_DIGITS}g}" if abs(value) < 10**SHOWN_DIGITS else f"{value:.0f}"
    return "" if value is None else str(value)


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _peak_bytes() -> int:
    """Return the peak of resident memory of this process alone.

    `getrusage` counts what the parent held when it started us, so Linux's own figure comes first.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    import resource  # noqa: PLC0415 - not on every system

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def _serve_child(function: str, arguments: str, answer: str) -> None:
    module, _, name = function.partition(":")
    result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    Path(answer).write_text(json.dumps({**result, "peak_bytes": _peak_bytes()}))


def main() -> int:
    """Show stored figures: `python -m benchmarks.reporting FILE.json [--docs]`."""
    if sys.argv[1:2] == ["--child"]:
        _serve_child(*sys.argv[2:5])
        return 0
    parser = argparse.ArgumentParser(description="Print the figures that a benchmark has stored.")
    parser.add_argument("file", type=Path, help="what --json wrote")
    parser.add_argument("--docs", action="store_true", help="put them into docs/benchmarks.md")
    options = parser.parse_args()
    data = json.loads(options.file.read_text(encoding="utf-8"))
    if options.docs:
        write_section(data)
    else:
        print(render_markdown(data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
