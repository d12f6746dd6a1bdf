"""The LoRA marketplace: a Django project around the `composer` library.

The Celery application is loaded here so that `shared_task` finds it in the web process as well.
"""

from __future__ import annotations

from marketplace.celery import app as celery_app

__all__ = ["celery_app"]
