"""Inspect what lies in quarantine in a child process with little memory, little time, no network.

The child is `python -m composer.inspection`; nothing of the files is parsed in the web process. A
child that crashes or does not end is a problem of the files like any other, told in a sentence.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

from composer.errors import Problem
from composer.inspection import AdapterSummary
from marketplace.catalogue.models import BaseModel
from marketplace.uploads.quarantine import CONFIG, PICKLE, WEIGHTS

MAX_CONFIG_BYTES = 64 * 1024
_PROJECT = Path(settings.BASE_DIR)


@dataclass(frozen=True)
class Outcome:
    """What inspection said: a summary, or every problem and the bases that would fit."""

    summary: AdapterSummary | None = None
    base_model: BaseModel | None = None
    problems: tuple[Problem, ...] = ()
    fitting_bases: tuple[str, ...] = field(default_factory=tuple)


def validate_folder(folder: Path, *, base_model: BaseModel | None) -> Outcome:
    """Inspect a folder against the chosen base, or the one that its configuration names."""
    missing = _find_missing(folder)
    if missing:
        return Outcome(base_model=base_model, problems=missing)
    base = base_model or _named_base(folder)
    if base is None:
        return _without_base(folder)
    summary, problems = _inspect(folder, base)
    if summary is not None:
        return Outcome(summary, base)
    return Outcome(None, base, problems, _fitting_bases(folder, besides=base))


def _find_missing(folder: Path) -> tuple[Problem, ...]:
    found = []
    if not (folder / CONFIG).is_file():
        found.append(
            Problem(CONFIG, "", "is missing.", "It is beside the weights where peft saved them.")
        )
    if not (folder / WEIGHTS).is_file() and not (folder / PICKLE).is_file():
        found.append(
            Problem(WEIGHTS, "", "is missing.", "Upload it, or adapter_model.bin to convert.")
        )
    return tuple(found)


def _named_base(folder: Path) -> BaseModel | None:
    name = _read_base_name(folder)
    return BaseModel.objects.ready().named(name) if name else None


def _read_base_name(folder: Path) -> str:
    """Return what the configuration calls its base; a file that cannot be read names none."""
    path = folder / CONFIG
    if path.stat().st_size > MAX_CONFIG_BYTES:
        return ""
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return ""
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    return name if isinstance(name, str) else ""


def _without_base(folder: Path) -> Outcome:
    """The base is not known here: say so, beside whatever else is wrong."""
    _, problems = _inspect(folder, None)
    name = _read_base_name(folder) or "no base model"
    known = ", ".join(BaseModel.objects.ready().values_list("name", flat=True)[:10]) or "none yet"
    unknown = Problem(
        CONFIG,
        "base_model_name_or_path",
        f"names {name[:120]}, which is not known here.",
        f"Known are: {known}. Choose one of these if it is the same model, "
        "or ask the administrator to add it.",
    )
    return Outcome(None, None, (unknown, *problems), _fitting_bases(folder, besides=None))


def _fitting_bases(folder: Path, *, besides: BaseModel | None) -> tuple[str, ...]:
    others = BaseModel.objects.ready().exclude(pk=besides.pk if besides else None)[:5]
    return tuple(base.name for base in others if _inspect(folder, base)[0] is not None)


def _inspect(
    folder: Path, base: BaseModel | None
) -> tuple[AdapterSummary | None, tuple[Problem, ...]]:
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as table:
        json.dump(base.module_table if base else {}, table)
    command = [sys.executable, "-m", "composer.inspection", str(folder), "--convert"]
    if base is not None:
        command += ["--table", table.name, "--base", base.name]
    try:
        done = subprocess.run(
            command,
            cwd=_PROJECT,
            env={"PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            timeout=settings.VALIDATION_SECONDS,
            preexec_fn=_limits(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, (_too_slow(),)
    finally:
        Path(table.name).unlink(missing_ok=True)
    return _read_outcome(done)


def _limits() -> Callable[[], None]:
    memory = settings.VALIDATION_MEMORY_BYTES
    seconds = settings.VALIDATION_SECONDS
    largest = 2 * settings.MAX_WEIGHTS_BYTES

    def set_limits() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return set_limits


def _read_outcome(
    done: subprocess.CompletedProcess[bytes],
) -> tuple[AdapterSummary | None, tuple[Problem, ...]]:
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        slow = done.returncode == -signal.SIGXCPU
        return None, (_too_slow() if slow else _crashed(),)
    if "summary" in answer:
        return AdapterSummary.from_dict(answer["summary"]), ()
    return None, tuple(Problem.from_dict(problem) for problem in answer["problems"])


def _too_slow() -> Problem:
    return Problem(
        "",
        "",
        f"Reading the files took longer than {settings.VALIDATION_SECONDS} seconds.",
        "Save the adapter again with peft's save_pretrained; if it is very large, lower its rank.",
    )


def _crashed() -> Problem:
    return Problem(
        "",
        "",
        "The files cannot be read within the memory that a check may use.",
        "Save the adapter again with peft's save_pretrained and upload the new files.",
    )
