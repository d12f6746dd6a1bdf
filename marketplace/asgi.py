"""The ASGI entry point that uvicorn serves.

Only this process uses a connection pool: Celery forks its workers, and a pool does not survive
a fork.
"""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")
os.environ.setdefault("DATABASE_POOL", "true")

from typing import Any, cast

import django
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponseBase

django.setup(set_prefix=False)


class SiteHandler(ASGIHandler):
    """Runs all middleware and the view of a request in one thread.

    Django would change between the event loop and that thread for every single middleware, which
    takes longer than most of our views. Bodies of answers stream as before.
    """

    def load_middleware(self, is_async: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's
        """Build the chain for a thread."""
        super().load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """Answer in the request's thread."""
        return await sync_to_async(self.get_response)(request)


django_application = SiteHandler()

from marketplace.pages import error_page  # noqa: E402 - needs the loaded apps
from marketplace.request_bodies import guard_bodies  # noqa: E402

application = guard_bodies(cast("Any", django_application), error_page)
