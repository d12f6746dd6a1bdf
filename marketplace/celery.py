"""The Celery application: tasks are found in every app's `tasks` module.

All settings come from `marketplace.settings` (names beginning with `CELERY_`). The message only
rings the bell: what a task has to do, and whether it still has to, is read from the database.
"""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")

app = Celery("marketplace")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
