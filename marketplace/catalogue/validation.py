"""Inspect a folder of files in a child process with little memory, little time and no network.

The child is `composer.inspection` inside `confinement`; of the files, the web process itself reads
only the name of the base in the configuration. A child that crashes or does not end is a problem of
the files like any other, told in a sentence.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.conf import settings

from composer.errors import Problem
from composer.inspection import AdapterSummary
from composer.limits import DEFAULT
from composer.safetensors_header import WEIGHTS_NAME
from composer.strict_json import JSONError, parse_json
from marketplace.catalogue.models import BaseModel

logger = logging.getLogger(__name__)

MAX_SUGGESTIONS = 8
SUGGESTION_SECONDS = 8
CONFIG = "adapter_config.json"
_CONFINEMENT = Path(__file__).with_name("confinement.py")
# Each child may use 1 GiB: a crowd of uploads must not use up the machine.
_children = threading.BoundedSemaphore(4)


@dataclass(frozen=True)
class Outcome:
    """What inspection said: a summary, or every problem and the bases that would fit."""

    summary: AdapterSummary | None = None
    base_model: BaseModel | None = None
    problems: tuple[Problem, ...] = ()
    fitting_bases: tuple[str, ...] = ()

    def refused(self, problem: Problem) -> Outcome:
        """Return the outcome with one more problem."""
        return replace(self, summary=None, problems=(*self.problems, problem))


def validate_folder(folder: Path, *, base_model: BaseModel | None) -> Outcome:
    """Inspect a folder against the chosen base, or the one that its configuration names."""
    name = _read_base_name(folder)
    base = base_model or (BaseModel.objects.named(name) if name else None)
    if base is not None and base.state == BaseModel.State.READY:
        summary, problems = _inspect(folder, base, settings.VALIDATION_SECONDS)
        if summary is not None:
            return Outcome(summary, base)
    else:
        _, problems = _inspect(folder, None, settings.VALIDATION_SECONDS)
        problems = (*_explain_base(name, base), *problems)
    fitting = _fitting_bases(folder, besides=base) if _speak_of_base(problems) else ()
    return Outcome(None, base, problems, fitting)


def _read_base_name(folder: Path) -> str | None:
    """Return what the configuration calls its base, "" for nothing, None where it is unreadable."""
    path = folder / CONFIG
    if not path.is_file() or path.stat().st_size > DEFAULT.config_bytes:
        return None
    try:
        config = parse_json(path.read_bytes())
    except JSONError:
        return None
    if not isinstance(config, dict):
        return None
    name = config.get("base_model_name_or_path")
    return name if isinstance(name, str) else ""


def _explain_base(name: str | None, base: BaseModel | None) -> tuple[Problem, ...]:
    """Say why there is no base to compare with; an unreadable configuration is told already."""
    field = "base_model_name_or_path"
    if base is not None:
        fix = "Try again in some minutes." if base.state == "pending" else "Tell the administrator."
        return (Problem(CONFIG, field, f"{base.name} is not ready here yet.", fix),)
    if name is None:
        return ()
    known = list(BaseModel.objects.ready().values_list("name", flat=True)[:10])
    fix = "Ask the administrator to add it."
    if known:
        fix = f"Choose the base it was trained on ({', '.join(known)}), or ask to have it added."
    told = f"The base model {name[:120]} is not known here." if name else "No base model is named."
    return (Problem(CONFIG, field, told, fix),)


def _speak_of_base(problems: tuple[Problem, ...]) -> bool:
    """Tell whether anything speaks against the base rather than against the files themselves."""
    return any(
        problem.field == "base_model_name_or_path"
        or (problem.file == WEIGHTS_NAME and problem.field in {"shape", "tensors"})
        for problem in problems
    )


def _fitting_bases(folder: Path, *, besides: BaseModel | None) -> tuple[str, ...]:
    deadline = time.monotonic() + SUGGESTION_SECONDS
    fitting = []
    others = BaseModel.objects.ready()
    if besides is not None:
        others = others.exclude(pk=besides.pk)
    for base in list(others[:MAX_SUGGESTIONS]):
        seconds = deadline - time.monotonic()
        if seconds > 0 and _has_shapes_of_base(_inspect(folder, base, seconds)[1]):
            fitting.append(base.name)
    return tuple(fitting)


def _has_shapes_of_base(problems: tuple[Problem, ...]) -> bool:
    """Tell whether names and shapes of all tensors agree, whatever else is wrong."""
    return all(problem.file == CONFIG or problem.field == "values" for problem in problems)


def _inspect(
    folder: Path, base: BaseModel | None, seconds: float
) -> tuple[AdapterSummary | None, tuple[Problem, ...]]:
    with tempfile.TemporaryDirectory() as outside:
        arguments = [str(folder), "--convert"]
        if base is not None:
            table = Path(outside) / "module_table.json"
            table.write_text(json.dumps(base.module_table), encoding="utf-8")
            arguments += ["--table", str(table), "--base", base.name]
        try:
            with _children:
                return _read_outcome(_run(arguments, seconds))
        except subprocess.TimeoutExpired:
            return None, (_too_slow(),)


def _run(arguments: list[str], seconds: float) -> subprocess.CompletedProcess[bytes]:
    limits = (
        settings.VALIDATION_MEMORY_BYTES,
        settings.VALIDATION_SECONDS,
        2 * settings.MAX_WEIGHTS_BYTES,
    )
    return subprocess.run(
        # -P: nothing is imported from the folder of the script or the one we are in.
        [sys.executable, "-P", str(_CONFINEMENT), *map(str, limits), *arguments],
        env={
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(settings.BASE_DIR),
            "LC_ALL": "C.UTF-8",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        check=False,
    )


def _read_outcome(
    done: subprocess.CompletedProcess[bytes],
) -> tuple[AdapterSummary | None, tuple[Problem, ...]]:
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        logger.warning(
            "catalogue: an inspection ended with %s: %s",
            done.returncode,
            done.stderr[-2000:].decode("utf-8", "replace"),
        )
        return None, (_too_slow() if done.returncode == -signal.SIGXCPU else _crashed(),)
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
