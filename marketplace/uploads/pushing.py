"""Push a revision to another hub: lay out its files, let `push_process` send them, and listen.

The child has the token for as long as it runs. It is stopped when the user cancels, when the lease
is lost or when time is over; a push that was broken off can be done again, since a hub makes no new
commit of files that it has.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings

from marketplace.blobs.services import copy_blob
from marketplace.uploads.holding import Hold
from marketplace.uploads.hub_reader import HubFailure
from marketplace.uploads.hub_rules import rules_for
from marketplace.uploads.models import Export, Transfer
from marketplace.uploads.sealing import unseal

BEAT_SECONDS = 1.0


def do_export(job: Export, hold: Hold) -> None:
    """Send the revision's files and keep what the hub calls the commit.

    Raises:
        HubFailure: the other hub does not take it.
    """
    token = unseal(job.sealed_token, job.pk)
    files = list(job.revision.files.select_related("blob"))
    total = sum(file.blob.size for file in files)
    hold.report(phase="reading", bytes_done=0, bytes_total=total)
    with tempfile.TemporaryDirectory(prefix="export-", dir=_work_folder()) as place:
        folder = Path(place) / "files"
        for file in files:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_blob(file.blob, target)
        order = _order(job, token, folder)
        with _running_child(order, home=Path(place)) as lines:
            answer = _follow(lines, hold, total)
    hold.end(
        Transfer.State.SUCCEEDED,
        commit=str(answer["commit"])[:40],
        commit_url=str(answer["url"])[:500],
        bytes_done=total,
    )


def _work_folder() -> Path:
    folder = Path(settings.WORK_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _order(job: Export, token: str, folder: Path) -> dict[str, Any]:
    rules = rules_for(job.hub)
    name = f"{job.revision.adapter.full_name} {job.revision.label}"
    return {
        "hub": rules.hub,
        "file_hosts": rules.file_hosts,
        "internal": rules.internal,
        "repo_id": job.repo_id,
        "private": job.private,
        "token": token,
        "folder": str(folder),
        "title": f"{name} of {settings.SITE_NAME}",
        "message": f"{settings.PUBLIC_URL}/{job.revision.adapter.full_name} at {job.revision.oid}",
    }


@contextlib.contextmanager
def _running_child(
    order: Mapping[str, Any], *, home: Path
) -> Iterator[queue.Queue[dict[str, Any] | None]]:
    """Start the child, give the lines it says (None at the end), and end it in any case."""
    log = home / "stderr"
    with (
        log.open("w+b") as errors,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "marketplace.uploads.push_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=home,
            env=_environment(order["hub"], home),
        ) as child,
    ):
        lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        listener = threading.Thread(target=_listen, args=(child, lines), daemon=True)
        listener.start()
        try:
            if child.stdin is not None:
                with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
                    stdin.write(json.dumps(order).encode())
            yield lines
        finally:
            child.kill()
            child.wait()
            listener.join()


def _environment(hub: str, home: Path) -> dict[str, str]:
    """Nothing of ours is passed on: the child needs no database and no key."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(settings.BASE_DIR),
        "LC_ALL": "C.UTF-8",
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": hub,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    }


def _listen(child: subprocess.Popen[bytes], lines: queue.Queue[dict[str, Any] | None]) -> None:
    for line in child.stdout or ():
        with contextlib.suppress(ValueError):
            told = json.loads(line)
            if isinstance(told, dict):
                lines.put(told)
    lines.put(None)


def _follow(lines: queue.Queue[dict[str, Any] | None], hold: Hold, total: int) -> dict[str, Any]:
    """Report what the child says until it says how it ended."""
    deadline = time.monotonic() + settings.TRANSFER_SECONDS
    while time.monotonic() < deadline:
        try:
            line = lines.get(timeout=BEAT_SECONDS)
        except queue.Empty:
            hold.report()
            continue
        if line is None:
            raise HubFailure("internal", "The push broke off on our side.", "Retry.")
        if "error" in line:
            raise HubFailure(line["code"], line["error"], line.get("fix", ""))
        if "commit" in line:
            return line
        if "phase" in line:
            hold.report(phase=str(line["phase"])[:12])
        else:
            hold.report_bytes(min(int(line.get("sent", 0)), total))
    raise HubFailure("too_slow", "The push took too long and was stopped.", "Try again later.")
