"""How fast the hub's wire is: requests a second, downloads, lists, memory of large files, hiding.

The site (uvicorn, PostgreSQL, Valkey) is started for it, and beside it a bare ASGI application, a
bare Django view and a static file server, each under the same uvicorn; all are asked in turn.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import hub_load
from benchmarks.hub_load import Request
from benchmarks.hub_transfers import LARGE_BYTES, make_large_adapter
from benchmarks.reporting import PROJECT, BenchReport, read_options
from composer.safetensors_header import WEIGHTS_NAME
from marketplace.embedded import postgres, valkey
from marketplace.embedded.processes import ChildProcess, ProcessSpec
from tests.stack import Stack, free_port, running_stack

SMALL, LARGE = 200, 20_000
HEAD_GOAL, DOWNLOAD_GOAL, LIST_GOAL, HIDING_GOAL = 0.3, 0.7, 2.0, 0.05
GROWTH_GOAL_MB = 100
LISTS = {
    "newest first": "sort=createdAt",
    "filters: base and format": "filter=lora&filter=base_model:adapter:bench/base1",
    "filters: base and tag": "filter=base_model:adapter:bench/base1&filter=tag1&sort=likes",
    "author": "author=owner3&sort=lastModified",
    "search": "search=owner3/adapter1",
    "search and filters": "search=adapter1&filter=lora&pipeline_tag=text-generation",
}
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ }}
http {{ access_log off; sendfile on; client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {root}; }} }}
"""


@dataclass(frozen=True)
class Servers:
    """The site and what it is measured beside; ports."""

    site: Stack
    token: str
    oid: str
    yardsticks: dict[str, int]
    folder: Path


def main() -> int:
    """Start everything, measure, report."""
    options = read_options(__doc__)
    report = BenchReport("hub", options)
    with tempfile.TemporaryDirectory(prefix="lm-bench-") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        folder.chmod(0o755)  # PostgreSQL runs as another user where this runs as root
        servers = stack.enter_context(_start(folder))
        large = "bench/large"
        _measure_transfers(report, servers, large)
        _measure_downloads(report, servers, large, quick=options.quick)
        _measure_lists(report, servers, quick=options.quick)
        _measure_requests(report, servers, quick=options.quick)
        _measure_hiding(report, servers, quick=options.quick)
    return report.finish()


# ---- the measurements ------------------------------------------------------------------------


def _measure_requests(report: BenchReport, servers: Servers, *, quick: bool) -> None:
    site, resolve = servers.site.port, f"/bench/adapter/resolve/main/{WEIGHTS_NAME}"
    by_oid = f"/bench/adapter/resolve/{servers.oid}/adapter_config.json"
    list_path = f"/api/models?limit=20&{LISTS['filters: base and format']}"
    requests = {
        "bare ASGI application": Request(servers.yardsticks["bare_asgi"], resolve, "HEAD"),
        "bare Django view": Request(servers.yardsticks["bare_django"], resolve, "HEAD"),
        "HEAD resolve": Request(site, resolve, "HEAD"),
        "HEAD resolve, by commit": Request(site, by_oid, "HEAD"),
        "HEAD resolve, with a token": Request(site, resolve, "HEAD", servers.token),
        "model info": Request(site, "/api/models/bench/adapter"),
        "tree": Request(site, f"/api/models/bench/adapter/tree/{servers.oid}?recursive=true"),
        f"list of 20 out of {LARGE:,}, filtered": Request(site, list_path),
    }
    seconds, repeats = (1.0, 3) if quick else (2.0, 5)
    found = hub_load.rates(requests, seconds=seconds, repeats=repeats)
    view = found["bare Django view"]
    report.add_table(
        f"Requests a second, {hub_load.CONNECTIONS} connections",
        [
            {"what": name, "requests/s": value, "of a bare Django view": value / view}
            for name, value in found.items()
        ],
    )
    report.add_goal(
        "HEAD resolve against a bare Django view", found["HEAD resolve"] / view, at_least=HEAD_GOAL
    )


def _measure_lists(report: BenchReport, servers: Servers, *, quick: bool) -> None:
    requests = {
        name: Request(servers.site.port, f"/api/models?limit=20&{query}")
        for name, query in LISTS.items()
    }
    times = 30 if quick else 100
    medians = {}
    for count in (SMALL, LARGE):
        servers.site.manage("shell", "-c", f"from benchmarks.hub_rows import fill; fill({count})")
        found = hub_load.latencies(requests, times=times)
        medians[count] = {name: statistics.median(values) for name, values in found.items()}
    rows: list[dict[str, Any]] = [
        {
            "page of 20 models": name,
            f"ms at {SMALL}": medians[SMALL][name],
            f"ms at {LARGE:,}": medians[LARGE][name],
            "times": medians[LARGE][name] / medians[SMALL][name],
        }
        for name in LISTS
    ]
    report.add_table("Lists", rows)
    worst = max(row["times"] for row in rows if "filter" in row["page of 20 models"])
    report.add_goal(
        f"filtered page at {LARGE:,} adapters against {SMALL}", worst, at_most=LIST_GOAL
    )


def _measure_downloads(report: BenchReport, servers: Servers, large: str, *, quick: bool) -> None:
    path = f"/{large}/resolve/main/{WEIGHTS_NAME}"
    requests = {"static file server (ASGI)": Request(servers.yardsticks["static"], "/")}
    if "nginx" in servers.yardsticks:
        requests["nginx"] = Request(servers.yardsticks["nginx"], f"/{WEIGHTS_NAME}")
    requests["hub"] = Request(servers.site.port, path)
    found = hub_load.megabytes_a_second(requests, repeats=3 if quick else 7)
    static = found["static file server (ASGI)"]
    report.add_table(
        f"One download of {LARGE_BYTES // 2**20} MiB",
        [
            {"what": name, "MB/s": value, "of the static server": value / static}
            for name, value in found.items()
        ],
    )
    report.add_goal(
        "download against a static file server", found["hub"] / static, at_least=DOWNLOAD_GOAL
    )


def _measure_transfers(report: BenchReport, servers: Servers, large: str) -> None:
    folder = servers.folder / "large"
    rows: list[dict[str, Any]] = []
    ways: list[tuple[str, dict[str, str]]] = [
        ("in, LFS in one piece", {"WAY": "basic", "HF_HUB_DISABLE_XET": "1"}),
        ("in, LFS in parts", {"WAY": "upload", "HF_HUB_DISABLE_XET": "1"}),
        ("in, Xet", {"WAY": "upload"}),
        ("out, hf_hub_download", {"WAY": "download"}),
    ]
    for number, (title, env) in enumerate(ways):
        if env["WAY"] != "download":
            make_large_adapter(folder, seed=number)
        memory = _Memory(servers.site)
        seconds = _run_client(servers, folder, large, env)
        rows.append(
            {
                "way of one adapter": title,
                "MiB": LARGE_BYTES / 2**20,
                "seconds": seconds,
                "growth of the web process, MB": memory.growth(),
            }
        )
    report.add_table("Large adapters through the stock client, checked and published", rows)
    worst = max(row["growth of the web process, MB"] for row in rows)
    report.add_goal(
        f"growth for {LARGE_BYTES // 2**20} MiB in and out, MB", worst, at_most=GROWTH_GOAL_MB
    )


def _measure_hiding(report: BenchReport, servers: Servers, *, quick: bool) -> None:
    site = servers.site.port
    stranger = servers.site.make_user("stranger")
    kinds = {
        "HEAD resolve": ("HEAD", "/bench/{}/resolve/main/adapter_config.json", ""),
        "HEAD resolve, signed in": ("HEAD", "/bench/{}/resolve/main/adapter_config.json", stranger),
        "model info": ("GET", "/api/models/bench/{}", ""),
        "tree": ("GET", "/api/models/bench/{}/tree/main", ""),
    }
    rows, worst = [], 0.0
    for title, (method, path, token) in kinds.items():
        status = 404 if token else 401
        requests = {
            name: Request(site, path.format(name), method, token, status)
            for name in ("hidden", "absent")
        }
        found = hub_load.latencies(requests, times=200 if quick else 600)
        hidden, absent = (hub_load.spread(found[name]) for name in ("hidden", "absent"))
        difference = abs(hidden[1] - absent[1]) / absent[1]
        worst = max(worst, difference)
        rows.append(
            {
                "request": title,
                "private, ms": hidden[1],
                "missing, ms": absent[1],
                "quartiles of missing, ms": f"{absent[0]:.2f} to {absent[2]:.2f}",
                "difference": difference,
            }
        )
    report.add_table("Private and missing: medians", rows)
    report.add_goal("private against missing, share of the time", worst, at_most=HIDING_GOAL)


# ---- the servers -----------------------------------------------------------------------------


@contextmanager
def _start(folder: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        database = postgres.start(folder, durable=False)
        stack.callback(database.stop)
        broker = valkey.start(folder, durable=False)
        stack.callback(broker.stop)
        os.environ.update(
            SECRET_KEY="only-for-a-benchmark-" + "0123456789" * 5,
            DATABASE_URL=database.url,
            CELERY_BROKER_URL=broker.url,
            CACHE_URL=broker.cache_url,
            HF_HUB_OFFLINE="1",
        )
        quiet = {"LOG_LEVEL": "WARNING"}
        site = stack.enter_context(running_stack(folder / "site", number=2, settings=quiet))
        printed = site.manage(
            "shell", "-c", "from benchmarks.hub_rows import prepare; print('<<' + prepare())"
        )
        site.start_web()
        static = folder / "static" / WEIGHTS_NAME
        static.parent.mkdir(mode=0o755)
        make_large_adapter(static.parent, seed=99)
        yardsticks = {
            name: stack.enter_context(_served(folder, name, static))
            for name in ("bare_asgi", "bare_django", "static")
        }
        if shutil.which("nginx"):
            yardsticks["nginx"] = stack.enter_context(_nginx(folder, static.parent))
        oid = site.sql(
            "SELECT oid FROM catalogue_revision r JOIN catalogue_adapter a ON a.latest_id = r.id "
            "WHERE a.full_name = 'bench/adapter'"
        )[0][0]
        token = printed.partition("<<")[2].strip()
        yield Servers(site, token, oid, yardsticks, folder)


@contextmanager
def _served(folder: Path, name: str, static: Path) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"benchmarks.hub_yardsticks:{name}"]
    command += ["--port", str(port), "--lifespan", "off", "--log-level", "warning"]
    env = {"PATH": os.environ["PATH"], "STATIC_FILE": str(static)}
    with _running(folder, name, command, env, Request(port, "/", "HEAD")):
        yield port


@contextmanager
def _nginx(folder: Path, root: Path) -> Iterator[int]:
    port, place = free_port(), folder / "nginx"
    place.mkdir()
    config = place / "nginx.conf"
    config.write_text(NGINX.format(folder=place, port=port, root=root))
    command = ["nginx", "-c", str(config), "-p", str(place)]
    with _running(folder, "nginx", command, {}, Request(port, f"/{WEIGHTS_NAME}", "HEAD")):
        yield port


@contextmanager
def _running(
    folder: Path, name: str, command: list[str], env: dict[str, str], probe: Request
) -> Iterator[None]:
    spec = ProcessSpec(name, command, folder / f"{name}.log", env=env, cwd=PROJECT)
    process = ChildProcess(spec)
    try:
        process.wait_until(lambda: _answers(probe), seconds=60, pause=time.sleep)
        yield
    finally:
        process.stop()


def _answers(probe: Request) -> bool:
    try:
        hub_load.Connection(probe).close()
    except OSError:
        return False
    return True


class _Memory:
    """The peak of a web process's resident memory from now on, above what it has now."""

    def __init__(self, site: Stack) -> None:
        if site.web is None:
            raise RuntimeError("the site is not running")
        self._folder = Path(f"/proc/{site.web.pid}")
        (self._folder / "clear_refs").write_text("5")  # Linux: the peak begins anew
        self._start = self._read("VmRSS")

    def growth(self) -> float:
        """Return the growth in MB."""
        return (self._read("VmHWM") - self._start) / 1000

    def _read(self, name: str) -> int:
        for line in (self._folder / "status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024 // 1000
        raise RuntimeError(f"no {name} in {self._folder}")


def _run_client(servers: Servers, folder: Path, repo: str, env: dict[str, str]) -> float:
    """Run `hub_transfers` as a client with an empty home; return its seconds of transfer."""
    with tempfile.TemporaryDirectory(dir=servers.folder) as home:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.hub_transfers", str(folder), repo],
            cwd=PROJECT,
            env={
                "PATH": os.environ["PATH"], "HOME": home, "HF_HOME": f"{home}/hf",
                "HF_ENDPOINT": servers.site.url, "HF_TOKEN": servers.token,
                "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **env,
            },
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{env}: {done.stderr[-3000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


if __name__ == "__main__":
    sys.exit(main())
