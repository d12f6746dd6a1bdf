"""Start a private PostgreSQL and Valkey for `./dev` and for the tests.

Standard library only and no Django: `./dev` imports this package before anything is installed.
Production brings its own servers by DATABASE_URL and CELERY_BROKER_URL and never imports it.
"""

from __future__ import annotations
