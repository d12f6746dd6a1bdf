"""Apply a commit to the head of its branch: all of it or nothing, in the order it was written.

Inspecting takes seconds, so it happens without a lock: the tree is made from the head there is, and
the shelf takes it only while that is still the head. Whoever comes second makes theirs anew from
the first one's, so neither push is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from marketplace.accounts.models import User
from marketplace.blobs.models import Blob
from marketplace.catalogue import services
from marketplace.catalogue.models import Adapter, Revision
from marketplace.hub.errors import (
    BadRequest,
    EntryNotFound,
    RepoNotFound,
    RevisionNotFound,
    StaleParent,
)
from marketplace.hub.services.checking import check_tree
from marketplace.hub.services.operations import Commit, DeleteFile, DeleteFolder, Operation, Put

ATTEMPTS = 6
SHORTEST_PARENT = 7
Tree = dict[str, Blob]


def apply_commit(adapter: Adapter, branch: str, commit: Commit, *, by: User) -> Revision:
    """Put a commit on a branch and return its revision; the head where it changes nothing.

    Raises:
        BadRequest: the operations contradict each other, or the adapter is refused.
        EntryNotFound: a file to be deleted is not there.
        StaleParent: the head is not the parent that the client expects.
        RevisionNotFound: there is no such branch.
    """
    for _ in range(ATTEMPTS):
        head = services.read_head(adapter, branch)
        if head is None:
            raise RevisionNotFound(branch)
        if not _is_parent(commit.parent, head):
            return _find_repeated(head, commit)
        before = _read_files(head)
        files = _apply(before, commit.operations, head)
        if files == before:
            return head
        checked = check_tree(adapter, head, files)
        try:
            return services.push_revision(
                services.Push(
                    adapter=adapter,
                    branch=branch,
                    onto=head,
                    files=checked.files,
                    author=by,
                    title=" ".join(commit.title.split()),
                    message=commit.message,
                    summary=checked.summary,
                    base_model=checked.base_model,
                    card=checked.card,
                )
            )
        except services.HeadMoved:
            continue
        except services.Gone:
            raise RepoNotFound(signed_in=True) from None
        except services.PublishError as error:
            raise BadRequest(str(error), problems=error.problems) from error
    raise StaleParent("Other commits keep coming in between. Try again in a moment.")


def _is_parent(told: str, head: Revision) -> bool:
    if not told:
        return True
    return len(told) >= SHORTEST_PARENT and head.oid.startswith(told)


def _find_repeated(head: Revision, commit: Commit) -> Revision:
    """Return the head where this very commit made it: a client that lost the answer sends again.

    Raises:
        StaleParent: it is another commit.
    """
    if head.parent is not None and _is_parent(commit.parent, head.parent):
        try:
            same = _apply(_read_files(head.parent), commit.operations, head.parent)
        except (BadRequest, EntryNotFound):
            same = {}
        if same and same == _read_files(head):
            return head
    raise StaleParent(
        f"The branch has moved on: its head is {head.oid}, not {commit.parent[:40]}. "
        "Fetch it and try again."
    )


def _read_files(revision: Revision) -> Tree:
    return {file.path: file.blob for file in revision.files.select_related("blob")}


def _apply(before: Mapping[str, Blob], operations: Iterable[Operation], head: Revision) -> Tree:
    files = dict(before)
    for operation in operations:
        match operation:
            case Put(path, blob):
                files[path] = blob
            case DeleteFile(path):
                if files.pop(path, None) is None:
                    raise EntryNotFound(
                        f"A file with this name doesn't exist: {path}", commit=head.oid
                    )
            case DeleteFolder(path):
                inside = [name for name in files if name.startswith(f"{path}/")]
                if not inside:
                    raise EntryNotFound(
                        f"A folder with this name doesn't exist: {path}", commit=head.oid
                    )
                for name in inside:
                    del files[name]
    _check_no_file_is_a_folder(files)
    return files


def _check_no_file_is_a_folder(files: Mapping[str, Blob]) -> None:
    for path in files:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder in files:
                raise BadRequest(f"{folder} cannot be both a file and a folder.")
