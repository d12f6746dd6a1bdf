"""The rules for owner and adapter names: those of the hub clients, and what our addresses need.

A name is ASCII, case-folded unique, and none of the words our own addresses begin with.
"""

from __future__ import annotations

import re

from django.core.exceptions import ValidationError

MAX_NAME_LENGTH = 96
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
RESERVED_OWNERS = frozenset(
    """
    _cas _lfs about account accounts adapters admin api assets auth base-models blog catalogue
    collections compose compositions contact datasets debug docs download downloads enterprise
    explore export exports favicon.ico health healthz help home import imports jobs join
    kernels legal live login logout me media metrics models moderation new oauth organizations
    orgs playground pricing privacy readyz register report resolve robots.txt root search
    security settings sign-in sign-out sign-up signup sitemap.xml spaces staff static status
    styleguide support system tasks terms theme tray upload uploads users welcome well-known
    www
    """.split()
)


def validate_owner_name(name: str) -> None:
    """Raise ValidationError, with every reason, unless the name may own adapters."""
    problems = _shape_problems(name)
    if name.lower() in RESERVED_OWNERS:
        problems.append(f"“{name}” is reserved for the site's own addresses. Choose another name.")
    if problems:
        raise ValidationError(problems)


def validate_adapter_name(name: str) -> None:
    """Raise ValidationError, with every reason, unless the name may stand after owner/."""
    problems = _shape_problems(name)
    if name.endswith(".git"):
        problems.append("A name must not end in “.git”.")
    if problems:
        raise ValidationError(problems)


def _shape_problems(name: str) -> list[str]:
    problems = []
    if len(name) > MAX_NAME_LENGTH:
        problems.append(
            f"A name has at most {MAX_NAME_LENGTH} characters; this one has {len(name)}."
        )
    if not NAME_PATTERN.match(name):
        problems.append(
            "A name begins with a letter or digit and holds only the letters a to z, digits, "
            "“.”, “_” and “-”."
        )
    if "--" in name or ".." in name:
        problems.append("A name must not contain “--” or “..”.")
    if name and name[-1] in "-.":
        problems.append("A name must not end in “-” or “.”.")
    return problems
