"""The ASGI entry point that uvicorn serves.

Only this process uses a connection pool: Celery forks its workers, and a pool does not survive
a fork.
"""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")
os.environ.setdefault("DATABASE_POOL", "true")

from typing import Any, cast

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

from marketplace.pages import error_page  # noqa: E402 - needs the loaded apps
from marketplace.request_bodies import guard_bodies  # noqa: E402

application = guard_bodies(cast("Any", django_application), error_page)
