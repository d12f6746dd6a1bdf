"""`python -m composer compose | inspect | merge | evaluate`: the library without writing Python.

Parses arguments, hands over to `composer.commands` and turns errors into sentences and exit codes:
0 done, 1 refused or failed with the reasons printed, 2 wrong usage, 130 stopped with Ctrl-C or by a
signal, with nothing half written.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from composer.commands.arguments import parse_arguments
from composer.commands.output import Output
from composer.errors import ComposerError
from composer.extras import explain_missing

FAILED, STOPPED = 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = parse_arguments(argv)
    output = Output(as_json=args.json, quiet=args.quiet)
    # Lines that the libraries print about themselves are not ours to show.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with _stoppable():
            command = importlib.import_module(f"composer.commands.{args.command}")
            return int(command.run(args, output))
    except ComposerError as error:
        output.show_error(error)
        return FAILED
    except ModuleNotFoundError as error:
        reason = explain_missing(error)
        if reason is None:
            raise
        output.show_error(ComposerError(reason))
        return FAILED
    except KeyboardInterrupt:
        output.say("Stopped. A checkpoint, if you asked for one, is kept.")
        return STOPPED
    except OSError as error:
        output.show_error(
            ComposerError(f"{error.filename or 'A file'}: {error.strerror or error}.")
        )
        return FAILED


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Let a polite kill end the work as Ctrl-C does: what is half written is taken away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
