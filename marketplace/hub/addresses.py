"""Split the address of a request into repository, revision and path, before it is decoded.

The clients send a revision as one segment with `%2F` for a slash in it; the decoded path no longer
tells `exp%2Fa/file` from `exp/a/file`. The server keeps the address as it was sent, so it is split
there. Absolute addresses in answers are built from PUBLIC_URL, whatever the request's Host says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from django.conf import settings
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from marketplace.accounts.names import validate_adapter_name, validate_owner_name
from marketplace.hub.errors import BadRequest

COMMIT = re.compile(r"[0-9a-f]{40}\Z")
REF_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._/+-]*\Z")
MAX_REF = 120
MAX_PATH = 500
FORBIDDEN_PARTS = frozenset({"", ".", "..", ".git"})


@dataclass(frozen=True)
class Place:
    """A revision name and a path below it, both decoded; either may be empty."""

    revision: str
    path: str


def read_place(request: HttpRequest, *, skip: int) -> Place:
    """Return what follows the first `skip` segments of the address: a revision, then a path."""
    segments = _raw_path(request).lstrip("/").split("/")[skip:]
    revision = unquote(segments[0]) if segments else ""
    for prefix in ("refs/heads/", "refs/tags/"):
        revision = revision.removeprefix(prefix)
    return Place(revision, "/".join(unquote(part) for part in segments[1:]).strip("/"))


def moved_to(request: HttpRequest, full_name: str) -> str:
    """The request's own address with the repository's new name in it, without a host."""
    segments = _raw_path(request).lstrip("/").split("/")
    start = 2 if segments[0] == "api" else 0
    git = ".git" if segments[start + 1].endswith(".git") else ""
    segments[start : start + 2] = [full_name + git]
    query = request.META.get("QUERY_STRING", "")
    return "/" + "/".join(segments) + (f"?{query}" if query else "")


def is_storable(text: str) -> bool:
    """Whether the database can be asked for it: no NUL and no half of a surrogate pair."""
    return not any(sign == "\x00" or "\ud800" <= sign <= "\udfff" for sign in text)


def check_path(path: str) -> str:
    """Return a path that a file of a repository may have; raise BadRequest for any other."""
    parts = path.split("/")
    fine = path.isprintable() and len(path) <= MAX_PATH and "\\" not in path
    if not fine or FORBIDDEN_PARTS & {part.lower() for part in parts}:
        raise BadRequest(
            f"{path[:100]!r} is not allowed as a file path: no empty, “.”, “..” or “.git” parts, "
            f"no backslash or control characters, at most {MAX_PATH} characters."
        )
    return path


def check_ref_name(name: str) -> str:
    """Return a name that a branch or tag may have; raise BadRequest for any other."""
    bad = ".." in name or "//" in name or name.endswith(("/", ".", ".lock"))
    if bad or len(name) > MAX_REF or not REF_NAME.match(name) or COMMIT.match(name):
        raise BadRequest(
            f"{name[:100]!r} is not allowed as a branch or tag name: letters, digits, space, "
            f"“.”, “_”, “/”, “+” and “-”, at most {MAX_REF} characters, and not 40 hex digits."
        )
    return name


def split_repo_id(repo_id: str, *, default_owner: str) -> tuple[str, str]:
    """Split `owner/name`; a bare name belongs to the caller. Raise BadRequest with every reason."""
    owner, _, name = repo_id.rpartition("/")
    owner = owner or default_owner
    problems: list[str] = []
    for check, value in ((validate_owner_name, owner), (validate_adapter_name, name)):
        try:
            check(value)
        except ValidationError as error:
            problems += error.messages
    if problems:
        raise BadRequest(f"{repo_id[:200]!r} is not a repository id. " + " ".join(problems))
    return owner, name


def repo_url(full_name: str) -> str:
    """The repository's page."""
    return f"{settings.PUBLIC_URL}/{full_name}"


def commit_url(full_name: str, oid: str) -> str:
    """The page of one commit."""
    return f"{settings.PUBLIC_URL}/{full_name}/commit/{oid}"


def resolve_url(full_name: str, revision: str, path: str) -> str:
    """The address of one file."""
    return f"/{full_name}/resolve/{quote(revision, safe='')}/{quote(path)}"


def _raw_path(request: HttpRequest) -> str:
    scope = getattr(request, "scope", None)
    if scope and scope.get("raw_path"):
        return str(scope["raw_path"].decode("latin-1").partition("?")[0])
    raw = request.META.get("RAW_URI") or request.META.get("REQUEST_URI")
    return str(raw).partition("?")[0] if raw else quote(request.path)
