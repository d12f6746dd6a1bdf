"""A search's evaluations on disk, rewritten atomically, so that a killed run can go on."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from composer.errors import StorageFull
from composer.search.asking import Evaluation


def read_checkpoint(path: Path, fingerprint: str) -> list[Evaluation]:
    """Read an earlier run's evaluations; a file of another search or a torn one counts as none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["fingerprint"] != fingerprint:
            return []
        return [
            Evaluation(item["number"], tuple(item["weights"]), item["loss"], item["fit_loss"])
            for item in data["evaluations"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def write_checkpoint(path: Path, fingerprint: str, history: Sequence[Evaluation]) -> None:
    """Replace the file by the whole history.

    Raises:
        StorageFull: if it cannot be written.
    """
    data = {"fingerprint": fingerprint, "evaluations": [asdict(item) for item in history]}
    scratch = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(data), encoding="utf-8")
        os.replace(scratch, path)  # noqa: PTH105 - atomic
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        message = f"The checkpoint {path.name} cannot be written: {error.strerror}."
        raise StorageFull(message) from error
