"""What fault tests do with a site: seed it, start jobs, watch them, lose workers.

Everything is looked at from outside: by SQL on the site's database, by its JSON API, by signals to
its processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from pathlib import Path
from typing import Any

from marketplace.embedded.processes import ChildProcess
from tests.stack import Stack

BASE = "tests/tiny"
OWNER = "carol"
USER = "alice"
ENDED = ("succeeded", "failed", "cancelled")
ROWS = [{"input": f"word{n}", "output": f"answer{n}"} for n in range(48)]
SEED_CODE = """
import pathlib
from composer.inspection import inspect_adapter
from marketplace.accounts.models import User
from marketplace.blobs.services import store_file
from marketplace.catalogue.models import Adapter, BaseModel
from marketplace.catalogue.services import CardFields, NewRevision, publish_revision
owner = User.objects.create_user({owner!r}, password=None)
base = BaseModel.objects.get()
table = {{path: tuple(shape) for path, shape in base.module_table.items()}}
for number in range(4):
    folder = pathlib.Path({folder!r}) / f"adapter{{number}}"
    paths = [folder / name for name in ("adapter_config.json", "adapter_model.safetensors")]
    publish_revision(
        NewRevision(
            owner=owner,
            name=f"adapter{{number}}",
            files={{path.name: store_file(path) for path in paths}},
            summary=inspect_adapter(folder, table, base_name=base.name),
            base_model=base,
            card=CardFields(licence="MIT"),
            title="Publish",
            origin="upload",
        )
    )
print(Adapter.objects.count())
"""


class FaultSite:
    """A running site with a tiny base, four adapters and a user who composes them."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.token = ""
        self._workers: list[ChildProcess] = []

    def seed(self, folder: Path) -> None:
        """Put base and adapters on the shelf."""
        base = str(folder / "base")
        self.stack.manage("add_base_model", BASE, "--folder", base, "--licence", "Apache-2.0")
        code = SEED_CODE.format(owner=OWNER, folder=str(folder))
        assert self.stack.manage("shell", "-v", "0", "-c", code).split()[-1] == "4"
        self.token = self.stack.make_user(USER)

    # ---- jobs --------------------------------------------------------------------------------

    def start_job(self, **changes: Any) -> str:
        """Start a job of about three seconds and return its id."""
        body = {
            "adapters": [f"{OWNER}/adapter{number}" for number in range(4)],
            "rows": ROWS,
            "n_fit": 40,
            "optimizer": "CMA",
            "budget": 200,
            "seed": 7,
            "dtype": "float32",
            "title": uuid.uuid4().hex,
            **changes,
        }
        return str(self.api("POST", "jobs", body)["id"])

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the JSON API as the user."""
        return self.stack.api(method, path, self.token, body)

    def field(self, job: str, name: str) -> Any:
        """Read one column of the job."""
        query = f"SELECT {name} FROM compositions_compositionjob WHERE id = %s"
        return self.stack.sql(query, job)[0][0]

    def evaluations(self, job: str) -> int:
        """How many evaluations are written."""
        query = "SELECT count(*) FROM compositions_evaluation WHERE job_id = %s"
        return int(self.stack.sql(query, job)[0][0])

    def weights(self, job: str) -> dict[str, float]:
        """The weights that a job ended with."""
        query = (
            "SELECT name, weight FROM compositions_ingredient "
            "WHERE job_id = %s AND weight IS NOT NULL"
        )
        return dict(self.stack.sql(query, job))

    def wait_for_state(self, job: str, *states: str, seconds: float = 90) -> str:
        """Wait until the job is in one of these states."""
        what = f"job {job} to become {' or '.join(states)}"
        return str(
            self.stack.wait_for(
                what, lambda: (s := self.field(job, "state")) in states and s, seconds=seconds
            )
        )

    def wait_for_evaluation(self, job: str, number: int, *, seconds: float = 60) -> None:
        """Wait until the search has scored so many weight vectors."""
        what = f"evaluation {number} of {job}"
        self.stack.wait_for(what, lambda: self.evaluations(job) > number, seconds=seconds)

    # ---- workers --------------------------------------------------------------------------------

    def start_worker(self) -> ChildProcess:
        """Start a worker that this test may lose."""
        worker = self.stack.start_worker()
        self._workers.append(worker)
        return worker

    def send_signal(self, worker: ChildProcess, number: signal.Signals) -> None:
        """Send a signal to the worker and everything it forked."""
        os.killpg(worker.pid, number)

    def log(self, worker: ChildProcess) -> str:
        """What the worker has written."""
        return self.stack.log_of(worker)

    def stop_workers(self) -> None:
        """Stop what is left, the stopped ones included."""
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                self.send_signal(worker, signal.SIGCONT)
            with contextlib.suppress(ProcessLookupError):
                self.send_signal(worker, signal.SIGKILL)
            worker.stop()
        self._workers.clear()
        self.stack.sql(
            "UPDATE compositions_compositionjob SET state = 'cancelled', finished_at = now(), "
            "lease_expires_at = NULL WHERE state IN ('queued', 'running')"
        )
