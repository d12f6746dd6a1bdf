"""A miniature of the project, so that `./dev` can be run and killed for real within seconds.

Its web server, worker and management commands are real processes on a real PostgreSQL and Valkey,
started by the project's own `dev` and `marketplace.embedded`; only the site itself is tiny: an
address that answers, and a task that leaves a file. The whole site is the journeys' business.
"""

from __future__ import annotations

import shutil
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]

FILES = {
    "marketplace/__init__.py": "from marketplace.celery import app as celery_app\n",
    "marketplace/celery.py": """
import os, pathlib, time
from celery import Celery
app = Celery("marketplace", broker=os.environ["CELERY_BROKER_URL"])
app.conf.beat_schedule_filename = os.path.join(os.environ["DATA_DIR"], "run", "schedule")
app.conf.task_ignore_result = True
@app.task(name="leave_file")
def leave_file():
    (pathlib.Path(os.environ["DATA_DIR"]) / "done-by-the-worker").write_text("42")
@app.task(name="stay_busy", acks_late=True)
def stay_busy():
    (pathlib.Path(os.environ["DATA_DIR"]) / "busy").write_text(str(os.getpid()))
    while True:
        sum(range(100_000))
""",
    "marketplace/asgi.py": """
async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ready"})
""",
    "manage.py": """
import os, pathlib, sys, time
import psycopg
data = pathlib.Path(os.environ["DATA_DIR"])
with (data / "calls").open("a") as calls:
    calls.write(sys.argv[1] + "\\n")
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    if sys.argv[1] == "migrate":
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        connection.execute("CREATE EXTENSION IF NOT EXISTS unaccent")
        connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
    elif sys.argv[1] == "seed_demo":
        connection.execute("INSERT INTO kept VALUES (1)")
        print("one adapter published", flush=True)
    elif sys.argv[1] == "fail":
        sys.exit("it went wrong on purpose")
if sys.argv[1] == "keep_busy":
    from marketplace.celery import stay_busy
    stay_busy.delay()
if sys.argv[1] == "demo_job":
    from marketplace.celery import leave_file
    result = data / "done-by-the-worker"
    if not result.exists():
        leave_file.delay()
    while not result.exists():
        time.sleep(0.02)
    print("the demo job's table:", result.read_text(), flush=True)
""",
}


def build_miniature(folder: Path) -> Path:
    """Write the miniature into `folder`, with the project's real `dev` and the same `.venv`."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shutil.copytree(
        PROJECT / "marketplace" / "embedded",
        folder / "marketplace" / "embedded",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("dev", "requirements.txt", "requirements-dev.txt", "requirements-local.txt"):
        shutil.copy2(PROJECT / name, folder / name)
    if (PROJECT / "constraints.txt").exists():
        shutil.copy2(PROJECT / "constraints.txt", folder / "constraints.txt")
    (folder / ".venv").symlink_to(PROJECT / ".venv")
    return folder
