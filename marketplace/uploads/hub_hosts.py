"""Which hubs this site talks to: the allow-list of the settings, and addresses that users type.

A user names a repository; where it lies is one of the listed hubs or nowhere. Nothing is connected
to here; `guarded_transport` holds every connection to the same list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from django.conf import settings

from marketplace.uploads.errors import UploadError

MAX_REVISION = 200
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}\Z")
_PAGES = frozenset({"tree", "blob", "resolve", "commit", "revisions"})
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ /+-]*\Z")
DEFAULT_REVISION = "main"


@dataclass(frozen=True)
class Source:
    """A revision of a repository of a hub."""

    hub: str
    repo_id: str
    revision: str


def list_hubs() -> list[str]:
    """Every hub that may be chosen, the default one first."""
    return list(dict.fromkeys([*settings.HUBS, *settings.INTERNAL_HUBS]))


def check_hub(text: str) -> str:
    """Return the hub as the settings write it, the first one where none is named.

    Raises:
        UploadError: it is not on the list.
    """
    hubs = list_hubs()
    wanted = text.strip().rstrip("/").lower()
    if not wanted and hubs:
        return hubs[0]
    if wanted in hubs:
        return wanted
    raise UploadError(
        f"{text[:80] or 'No hub'} is not among the hubs that this site talks to: "
        f"{', '.join(hubs) or 'none'}. The administrator can add it to HUBS.",
        field="hub",
    )


def read_source(hub: str, repo: str, revision: str = "") -> Source:
    """Read what a user typed: `owner/name`, or the address of its page on a listed hub.

    Raises:
        UploadError: with every problem, by field.
    """
    repo, revision = repo.strip(), revision.strip()
    if "://" in repo:
        parts = urlsplit(repo)
        host = f"{parts.scheme}://{parts.netloc}"
        segments = [unquote(part) for part in parts.path.strip("/").split("/")]
        repo = "/".join(segments[:2])
        if len(segments) > 3 and segments[2] in _PAGES and not revision:  # noqa: PLR2004
            revision = segments[3]
        hub = check_hub(host)
    else:
        hub = check_hub(hub)
    problems: dict[str, list[str]] = {}
    if not is_repo_id(repo):
        problems["repo_id"] = [
            f"“{repo[:80]}” is no repository. Write owner/name as on the hub's page."
        ]
    revision = revision or DEFAULT_REVISION
    if len(revision) > MAX_REVISION or ".." in revision or not _REVISION.match(revision):
        problems["revision"] = ["Give a branch, a tag or a commit id of 40 hexadecimal digits."]
    if problems:
        raise UploadError(problems)
    return Source(hub, repo, revision)


def is_repo_id(text: str) -> bool:
    """Whether a hub may have a repository of this name."""
    owner, slash, name = text.partition("/")
    fits = bool(slash and _PART.match(owner) and _PART.match(name))
    return fits and "--" not in text and ".." not in text and not name.endswith(".git")
