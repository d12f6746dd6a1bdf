"""Typed readers for environment variables that fail loudly.

Every setting of the site comes through one of these; a value that cannot be read stops the start
with a sentence that names the variable, what it holds and what it should hold.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS = frozenset({"0", "false", "no", "off", ""})


def read_text(name: str, default: str) -> str:
    """Return the variable, or the default where it is not set."""
    return os.environ.get(name, default)


def read_flag(name: str, *, default: bool) -> bool:
    """Return a yes-or-no variable; raise ImproperlyConfigured for any other word."""
    value = os.environ.get(name)
    if value is None:
        return default
    word = value.strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ImproperlyConfigured(f"{name}={value!r} is neither true nor false. Use true or false.")


def read_number(name: str, default: int, *, minimum: int = 0) -> int:
    """Return a whole number; raise ImproperlyConfigured where it is none or below the minimum."""
    value = os.environ.get(name)
    if value is None:
        return default
    try:
        number = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value!r} is not a whole number.") from None
    if number < minimum:
        raise ImproperlyConfigured(f"{name}={number} is below the smallest value {minimum}.")
    return number


def read_list(name: str, default: str) -> list[str]:
    """Return a comma-separated list without empty entries."""
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


def read_origins(name: str, default: str) -> list[str]:
    """Return a comma-separated list of addresses such as https://hub.example.org:8443.

    Raises:
        ImproperlyConfigured: one has another scheme than http and https, a path or a user name.
    """
    origins = []
    for text in read_list(name, default):
        parts = urlsplit(text.rstrip("/").lower())
        whole = f"{parts.scheme}://{parts.netloc}" == text.rstrip("/").lower()
        if not whole or parts.scheme not in {"http", "https"} or "@" in parts.netloc:
            raise ImproperlyConfigured(
                f"{name} holds {text!r}. Write scheme, host and port alone: https://huggingface.co."
            )
        origins.append(f"{parts.scheme}://{parts.netloc}")
    return origins


def read_folder(name: str, default: Path) -> Path:
    """Return an absolute folder path; the folder itself is made where it is used."""
    return Path(os.environ.get(name, str(default))).expanduser().resolve()


def read_database(name: str, default: str) -> dict[str, Any]:
    """Parse postgresql://user:password@host:port/database?host=/socket/folder into Django's form.

    Query parameters become psycopg's connection options; `host` there names a socket folder.
    """
    url = os.environ.get(name, default)
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"} or not parts.path.strip("/"):
        raise ImproperlyConfigured(
            f"{name}={url!r} is not a PostgreSQL address. Expected "
            "postgresql://user:password@host:port/database; no other database is supported."
        )
    options = dict(parse_qsl(parts.query))
    host = options.pop("host", unquote(parts.hostname or ""))
    user = options.pop("user", unquote(parts.username or ""))
    port = options.pop("port", str(parts.port or ""))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": user,
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": port,
        "OPTIONS": options,
    }
