"""The ASGI entry point that uvicorn serves.

Only this process uses a connection pool: Celery forks its workers, and a pool does not survive
a fork.
"""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")
os.environ.setdefault("DATABASE_POOL", "true")

from django.core.asgi import get_asgi_application

application = get_asgi_application()
