"""Run one command of the project to its end as a step that stays alive on the screen."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from marketplace.embedded.console import Step
from marketplace.embedded.errors import StepFailed
from marketplace.embedded.processes import ChildProcess, ProcessSpec
from marketplace.embedded.programs import PROJECT

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class StepCommand:
    """A command, where its output goes, how long it may take, and what to do if it fails."""

    command: Sequence[str]
    log: Path
    seconds: float
    fix: str = ""
    env: Mapping[str, str] | None = None


def run_command(step: Step, what: StepCommand, report: Callable[[str], None] | None = None) -> None:
    """Run the command; raise `StepFailed` if it fails, and end it if it takes too long.

    Args:
        step: is kept alive meanwhile.
        what: the command.
        report: is shown the output so far, again and again.
    """
    env = what.env if what.env is not None else dict(os.environ)
    child = ChildProcess(
        ProcessSpec(Path(what.command[0]).name, what.command, what.log, env=env, cwd=PROJECT)
    )

    def has_ended() -> bool:
        if report is not None:
            report(child.new_log_text())
        return child.exit_code is not None

    try:
        child.wait_until(has_ended, seconds=what.seconds, pause=lambda _: step.pause(POLL_SECONDS))
    finally:
        code = child.stop()
    if code != 0:
        raise StepFailed(f"{step.title}: the command failed.", fix=what.fix, log=what.log)
