"""The Celery application: tasks are found in every app's `tasks` module.

All settings come from `marketplace.settings` (names beginning with `CELERY_`). The message only
rings the bell: what a task has to do, and whether it still has to, is read from the database.

Workers log as the site does (`LOG_JSON`), under the id of the request that sent the task.
"""

from __future__ import annotations

import os
from typing import Any

import structlog
from celery import Celery, Task, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")

app = Celery("marketplace")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.setup_logging.connect
def keep_logging_of_settings(**_: Any) -> None:
    """Leave logging to `settings.LOGGING`: a receiver here keeps Celery from its own lines."""


@signals.before_task_publish.connect
def send_request_id(headers: dict[str, Any], **_: Any) -> None:
    """Let the message tell which request it comes from."""
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    if request_id:
        headers["request_id"] = request_id


@signals.task_prerun.connect
def log_under_request_id(task_id: str, task: Task[Any, Any], **_: Any) -> None:
    """Name the task, and the request behind it, in each line that the task logs."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(task_id=task_id)
    request_id = task.request.get("request_id")
    if request_id:
        structlog.contextvars.bind_contextvars(request_id=request_id)


@signals.task_postrun.connect
def forget_request_id(**_: Any) -> None:
    """What the process logs between two tasks belongs to neither."""
    structlog.contextvars.clear_contextvars()
