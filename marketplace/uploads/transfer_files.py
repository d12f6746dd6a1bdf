"""Which files an import or export moves, and how far each is: the table on its page."""

from __future__ import annotations

from dataclasses import dataclass

from marketplace.uploads.models import Export, Import


@dataclass(frozen=True)
class MovedFile:
    """One row of the table; the hash is empty as long as bytes are missing."""

    path: str
    size: int
    sha256: str
    is_done: bool


def list_files(job: Import | Export) -> list[MovedFile]:
    """Return the files of the revision, of the draft that is being filled."""
    if job.revision is not None:
        is_done = isinstance(job, Import) or job.state == job.State.SUCCEEDED
        rows = job.revision.files.select_related("blob").order_by("path")
        return [MovedFile(row.path, row.blob.size, row.blob.sha256, is_done) for row in rows]
    if isinstance(job, Import) and job.upload is not None and job.upload.is_open:
        return [
            MovedFile(row.path, row.received, row.sha256, row.complete)
            for row in job.upload.files.all()
        ]
    return []
