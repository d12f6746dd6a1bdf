"""The command line of `./dev`: parse, do, and turn every failure into words.

Each command is one function below; what it consists of is in the modules it calls.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from marketplace.embedded import postgres, quality, valkey
from marketplace.embedded.console import Console
from marketplace.embedded.errors import EmbeddedError, Interrupted, StepFailed
from marketplace.embedded.installation import PYTHON, install
from marketplace.embedded.lock import hold_lock, read_holder
from marketplace.embedded.privileges import find_account, find_server_folder
from marketplace.embedded.processes import run_in_foreground
from marketplace.embedded.programs import PROJECT, find_postgres
from marketplace.embedded.site import Site, check_port, make_environment
from marketplace.embedded.stop_requests import StopRequests
from marketplace.embedded.supervisor import Supervisor, end_leftovers

DEFAULT_PORT = 8000
STOP_SECONDS = 90.0
SHARED_BY_BENCHMARKS = ("reporting",)
PASS_ON = ("test", "psql", "manage")
DATA_OF_SERVERS = ("postgresql", "postgresql.new", "valkey", "sockets")
DATA_OF_SITE = (
    *("blobs", "quarantine", "work", "static", "run"),
    *("secret_key", "demo_password", "stamps.json"),
)
DEMO_USER = "demo"  # whom manage.py seed_demo makes
EXAMPLES = """\
examples:
  ./dev up                        install, start everything, serve until Ctrl-C
  ./dev up --once                 the same, but stop after the demo job's table
  ./dev up --data /tmp/b --port 8001   a second site beside the first
  ./dev test tests/composer -k merging
  ./dev manage createsuperuser
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = parse(list(sys.argv[1:] if arguments is None else arguments))
    stops = StopRequests()
    stops.listen()
    # What manage.py or psql prints must stay usable in a pipe: our own words go elsewhere.
    console = Console(stops.pause, sys.stderr if options.command in {manage, psql} else sys.stdout)
    command: Callable[[argparse.Namespace, Console, StopRequests], int] = options.command
    try:
        return command(options, console, stops)
    except Interrupted:
        console.line("Stopped.")
        return 130
    except EmbeddedError as error:
        console.failure(error)
    except PermissionError as error:
        console.failure(_explain_permission(error))
    return 1


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; what follows test, psql, manage or a benchmark is theirs."""
    parser = _build_parser()
    if arguments[:1] == ["bench"]:
        options, others = parser.parse_known_args(arguments)
        options.arguments = others
        return options
    if not arguments or arguments[0] not in PASS_ON or arguments[1:2] in (["-h"], ["--help"]):
        return parser.parse_args(arguments)
    own = 1
    if arguments[1:2] == ["--data"]:
        own = 3
    elif arguments[1:2] and arguments[1].startswith("--data="):
        own = 2
    options = parser.parse_args(arguments[:own])
    options.arguments = arguments[own:]
    return options


def up(options: argparse.Namespace, console: Console, stops: StopRequests) -> int:
    """Install, start everything, run the demo job, and serve."""
    started = time.monotonic()
    with hold_lock(options.data) as lock:
        for name in end_leftovers(lock.previous):
            console.line(f"The {name} of a killed ./dev was still running; it has been ended.")
        check_port(options.port)
        install(console, options.data / "log" / "pip.log", for_tests=False)
        with Supervisor(console, stops, lock) as supervisor:
            site = Site(options.data, options.port, console, supervisor)
            site.start_servers()
            site.prepare()
            site.start_processes()
            lock.holder.address = site.address
            lock.holder.environment = site.shared_environment()
            lock.save()
            site.run_demo_job()
            if not options.once:
                _print_welcome(console, site, time.monotonic() - started)
                try:
                    supervisor.watch()
                except Interrupted:
                    console.line()
    console.line("Everything has stopped; the data is kept.")
    return 0


def test(options: argparse.Namespace, console: Console, stops: StopRequests) -> int:
    """Run the tests with coverage; the servers are the tests' own."""
    log = options.data / "log" / "pip.log"
    install(console, log, for_tests=True)
    return quality.run_tests(console, log, options.arguments)


def check(options: argparse.Namespace, console: Console, stops: StopRequests) -> int:
    """Run every checker and report all of them."""
    log = options.data / "log" / "pip.log"
    install(console, log, for_tests=True)
    return quality.run_checks(console, log)


def format_sources(options: argparse.Namespace, console: Console, stops: StopRequests) -> int:
    """Let the formatters repair what they can."""
    install(console, options.data / "log" / "pip.log", for_tests=True)
    return quality.run_formatters(console)


def bench(options: argparse.Namespace, console: Console, stops: StopRequests) -> int:
    """Run one benchmark of benchmarks/."""
    modules = (PROJECT / "benchmarks").glob("[a-z]*.py")
    known = sorted(path.stem for path in modules if path.stem not in SHARED_BY_BENCHMARKS)
    if options.name not in known:
        raise EmbeddedError(
            f"There is no benchmark {options.name!r}.",
            fix=f"Choose one of: {', '.join(known) or '(there is none yet)'}.",
        )
    install(console, options.data / "log" / "pip.log", for_tests=True)
    extra = ["--json", str(Path(options.json).resolve())] if options.json else []
    command = [str(PYTHON), "-m", f"benchmarks.{options.name}", *extra, *options.arguments]
    return run_in_foreground(command, env=dict(os.environ), cwd=PROJECT)


def stop(options: argparse.Namespace, console: Console, stops: StopRequests) -> int:
    """Stop the running `./dev up` of a data folder, or what a killed one left behind."""
    holder = read_holder(options.data)
    if holder is None:
        with hold_lock(options.data) as lock:
            ended = end_leftovers(lock.previous) + _stop_servers(options.data)
        console.line(
            f"Ended what was left: {', '.join(ended)}." if ended else "Nothing is running."
        )
        return 0
    with console.step(f"Stopping process {holder.pid}") as step:
        os.kill(holder.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while read_holder(options.data) is not None:
            step.pause(0.1)
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"Process {holder.pid} does not stop.",
                    fix=f"kill -9 {holder.pid}, then ./dev stop once more.",
                )
        step.note = "everything has stopped"
    return 0


def psql(options: argparse.Namespace, console: Console, stops: StopRequests) -> int:
    """Open psql on the site's database."""
    programs = find_postgres()
    program = programs.folder / "psql" if programs else Path("psql")
    return _with_environment(
        options,
        console,
        stops,
        lambda env: [str(program), env["DATABASE_URL"], *options.arguments],
    )


def manage(options: argparse.Namespace, console: Console, stops: StopRequests) -> int:
    """Run a Django management command on the site's servers."""
    return _with_environment(
        options, console, stops, lambda env: [str(PYTHON), "manage.py", *options.arguments]
    )


def reset(options: argparse.Namespace, console: Console, stops: StopRequests) -> int:
    """Delete the data of a site: database, queue, files, keys."""
    with hold_lock(options.data) as lock:
        if not options.yes and not _confirm(f"Delete all data of the site in {options.data}?"):
            console.line("Nothing was deleted.")
            return 1
        end_leftovers(lock.previous)
        _stop_servers(options.data)
        servers = find_server_folder(options.data, find_account())
        paths = [servers / name for name in DATA_OF_SERVERS]
        paths += [options.data / name for name in DATA_OF_SITE]
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if servers != options.data:
            servers.rmdir()
    console.line(f"The data in {options.data} is deleted; converted base models and logs are kept.")
    return 0


def _with_environment(
    options: argparse.Namespace,
    console: Console,
    stops: StopRequests,
    command: Callable[[dict[str, str]], list[str]],
) -> int:
    """Run a command on the servers of the running site, or on servers started for it alone."""
    holder = read_holder(options.data)
    if holder is not None and holder.environment:
        address = holder.address
        env = make_environment(options.data, address) | holder.environment
        return run_in_foreground(command(env), env=env, cwd=PROJECT)
    with hold_lock(options.data) as lock:
        install(console, options.data / "log" / "pip.log", for_tests=False)
        with Supervisor(console, stops, lock) as supervisor:
            site = Site(options.data, options.port, console, supervisor)
            site.start_servers()
            return run_in_foreground(command(site.environment), env=site.environment, cwd=PROJECT)


def _stop_servers(data_dir: Path) -> list[str]:
    folder = find_server_folder(data_dir, find_account())
    ended = []
    if postgres.stop_leftover(folder / "postgresql"):
        ended.append("PostgreSQL")
    if valkey.stop_leftover(folder / "valkey"):
        ended.append("Valkey")
    return ended


def _print_welcome(console: Console, site: Site, seconds: float) -> None:
    console.line()
    console.line(f"Serving at {site.address}  (started in {seconds:.1f} s)")
    console.line(f"  Sign in as {DEMO_USER} with the password {site.environment['DEMO_PASSWORD']}")
    console.line(f"  Logs are in {site.data_dir / 'log'}; Ctrl-C or ./dev stop stops everything.")


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        raise EmbeddedError("Nobody can be asked here.", fix="Say ./dev reset --yes.")
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _explain_permission(error: PermissionError) -> EmbeddedError:
    return EmbeddedError(
        f"Permission denied: {error.filename or 'that process belongs to another user'}",
        fix="Run ./dev as the user who owns that file, or choose another folder with --data.",
    )


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev",
        description="Run, test and check the LoRA marketplace on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, function: Callable[..., int], usage: str | None = None
    ) -> argparse.ArgumentParser:
        words = (function.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=words, description=words, usage=usage)
        command.set_defaults(command=function, port=DEFAULT_PORT)
        command.add_argument(
            "--data",
            type=lambda text: Path(text).expanduser().resolve(),
            default=Path(os.environ.get("DATA_DIR") or PROJECT / "var").resolve(),
            metavar="DIR",
            help="where the site keeps its data (var/ of the project)",
        )
        return command

    command = add("up", up)
    command.add_argument("--once", action="store_true", help="stop after the demo job")
    command.add_argument("--port", type=int, default=DEFAULT_PORT, help="8000 when not given")
    add("test", test, usage="%(prog)s [--data DIR] [pytest's own arguments]")
    add("check", check)
    add("format", format_sources)
    command = add("bench", bench, usage="%(prog)s NAME [--json FILE] [the benchmark's own options]")
    command.add_argument("name", metavar="NAME")
    command.add_argument("--json", metavar="FILE", help="write the figures there")
    add("stop", stop)
    add("psql", psql, usage="%(prog)s [--data DIR] [psql's own arguments]")
    add("reset", reset).add_argument("--yes", action="store_true", help="do not ask")
    add("manage", manage, usage="%(prog)s [--data DIR] COMMAND [its own arguments]")
    return parser
