"""The rows of a revision: its files, its id, the facts of its summary, the room it takes.

Both doors use them: `publishing` for what is whole, `pushing` for what comes in commits.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.db.models import Max, Sum
from django.utils import timezone

from composer.inspection import AdapterSummary
from marketplace.accounts.models import User
from marketplace.blobs.models import Blob
from marketplace.catalogue.models import Adapter, Revision, RevisionFile
from marketplace.catalogue.services.errors import Problems


def read_tree(revision: Revision) -> dict[str, str]:
    """Return path -> sha256 of a revision's files."""
    return dict(revision.files.values_list("path", "blob_id"))


def hashes_of(files: Mapping[str, Blob]) -> dict[str, str]:
    """Return path -> sha256 of files that are to become a revision."""
    return {path: blob.pk for path, blob in files.items()}


def add_files(revision: Revision, files: Mapping[str, Blob]) -> None:
    """Give a new revision its files."""
    RevisionFile.objects.bulk_create(
        RevisionFile(revision=revision, path=path, blob=blob)
        for path, blob in sorted(files.items())
    )


def make_oid(files: Mapping[str, Blob], head: Revision | None) -> str:
    """Forty hex digits, like a commit's: the tree, what came before, the moment, and chance."""
    digest = hashlib.sha1(usedforsecurity=False)
    for path, sha256 in sorted(hashes_of(files).items()):
        digest.update(f"{sha256} {path}\n".encode())
    digest.update(f"parent {head.oid if head else ''}\n".encode())
    digest.update(f"time {timezone.now().isoformat()} {uuid.uuid4()}".encode())
    return digest.hexdigest()


def next_number(adapter: Adapter) -> int:
    """Return the number of the next accepted revision of main; the owner's row is locked."""
    numbers = Revision.objects.filter(adapter=adapter).aggregate(highest=Max("number"))
    return (numbers["highest"] or 0) + 1


def facts_of(summary: AdapterSummary) -> dict[str, Any]:
    """Return the columns of a revision that are copied out of its summary."""
    targets = sorted(summary.target_modules)
    return {
        "summary_json": summary.to_dict(),
        "rank": summary.rank,
        "alpha": summary.alpha,
        "target_modules": targets,
        "targets_key": ", ".join(targets)[:300],
        "dtype": summary.dtype,
        "parameter_count": summary.parameter_count,
        "weights_size": summary.weights_size,
        "weights_sha256": summary.weights_sha256,
    }


def read_used_bytes(owner: User) -> int:
    """Return what counts against the owner's quota: each content once, however often it is used."""
    return _sum_sizes(Blob.objects.filter(uses__revision__adapter__owner=owner))


def check_quota(owner: User, blobs: Iterable[Blob], problems: Problems) -> None:
    """Add a problem where these contents, as far as they are new, pass the owner's quota."""
    used = read_used_bytes(owner)
    hashes = {blob.pk for blob in blobs}
    fresh = Blob.objects.filter(pk__in=hashes).exclude(uses__revision__adapter__owner=owner)
    needed = _sum_sizes(fresh)
    if needed and used + needed > settings.USER_QUOTA_BYTES:
        problems.add(
            "files",
            f"Your {_megabytes(settings.USER_QUOTA_BYTES)} of space would be exceeded: "
            f"{_megabytes(used)} are used and this needs {_megabytes(needed)}. "
            "Delete an adapter or ask the administrator for more.",
        )


def _sum_sizes(blobs: Any) -> int:
    """Add up sizes without counting a blob once for each of its uses."""
    distinct = Blob.objects.filter(pk__in=blobs.values("pk"))
    return int(distinct.aggregate(total=Sum("size"))["total"] or 0)


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:,.1f} MB"
