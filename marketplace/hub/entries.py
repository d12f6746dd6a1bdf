"""Files and folders of a revision as the clients read them.

Large files are named by the sha256 of their content, all others by git's id; see `lfs_rule`. Trees
are small (a few dozen files), so they are read whole and cut in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marketplace.blobs.models import Blob
from marketplace.catalogue.models import Revision, RevisionFile
from marketplace.hub.lfs_rule import is_lfs, pointer_oid, pointer_text
from marketplace.hub.timestamps import utc

Entry = dict[str, Any]


def list_files(revision: Revision) -> list[RevisionFile]:
    """Return the files of a revision with their contents' rows, by path."""
    return list(revision.files.select_related("blob").order_by("path"))


def etag_of(path: str, blob: Blob) -> str:
    """Return the name under which a client caches the content: hex digits alone."""
    return blob.sha256 if is_lfs(path, blob.size) else git_oid(path, blob)


def git_oid(path: str, blob: Blob) -> str:
    """Return git's id of what would lie in a git repository: the content, or its pointer."""
    return pointer_oid(blob.sha256, blob.size) if is_lfs(path, blob.size) else blob.git_sha1


def sibling(file: RevisionFile, *, with_sizes: bool) -> Entry:
    """Describe a file in a model's document."""
    entry: Entry = {"rfilename": file.path}
    if with_sizes:
        blob = file.blob
        entry |= {"size": blob.size, "blobId": git_oid(file.path, blob)}
        if is_lfs(file.path, blob.size):
            entry["lfs"] = {"sha256": blob.sha256, **_lfs_sizes(blob)}
    return entry


def file_entry(file: RevisionFile) -> Entry:
    """Describe a file in a tree."""
    blob = file.blob
    entry = {
        "type": "file",
        "oid": git_oid(file.path, blob),
        "size": blob.size,
        "path": file.path,
    }
    if is_lfs(file.path, blob.size):
        entry["lfs"] = {"oid": blob.sha256, **_lfs_sizes(blob)}
    return entry


def list_entries(files: Iterable[RevisionFile], folder: str, *, recursive: bool) -> list[Entry]:
    """Return what is in a folder ("" is the root): its folders and files, by path."""
    prefix = f"{folder}/" if folder else ""
    inside = [file for file in files if file.path.startswith(prefix)]
    folders: dict[str, list[RevisionFile]] = {}
    for file in inside:
        parts = file.path.removeprefix(prefix).split("/")[:-1]
        for depth in range(1, len(parts) + 1 if recursive else min(len(parts), 1) + 1):
            folders.setdefault(prefix + "/".join(parts[:depth]), []).append(file)
    shown = [file for file in inside if recursive or "/" not in file.path.removeprefix(prefix)]
    entries = [_folder_entry(path, held) for path, held in folders.items()]
    entries += [file_entry(file) for file in shown]
    return sorted(entries, key=lambda entry: str(entry["path"]))


def find_entries(files: Sequence[RevisionFile], paths: Iterable[str]) -> list[Entry]:
    """Return the files and folders at these paths; those that do not exist are left out."""
    by_path = {entry["path"]: entry for entry in list_entries(files, "", recursive=True)}
    wanted = dict.fromkeys(path.strip("/") for path in paths)
    return [by_path[path] for path in wanted if path in by_path]


def add_last_commits(entries: Iterable[Entry], commits: Mapping[str, Entry]) -> None:
    """Say in each entry which commit changed it last; a folder's is the newest of its files'."""
    for entry in entries:
        if entry["type"] == "file":
            entry["lastCommit"] = commits[entry["path"]]
        else:
            within = (told for path, told in commits.items() if _is_in(path, entry["path"]))
            entry["lastCommit"] = max(within, key=lambda told: str(told["date"]))


def list_last_commits(revision: Revision, chain: Sequence[Any]) -> dict[str, Entry]:
    """Return for each path of a revision the commit of its history that brought the content.

    `chain` is the history, newest first, beginning with the revision itself.
    """
    trees: dict[int, dict[str, str]] = {}
    rows = RevisionFile.objects.filter(revision__in=[commit.pk for commit in chain])
    for pk, path, sha256 in rows.values_list("revision_id", "path", "blob_id"):
        trees.setdefault(pk, {})[path] = sha256
    return {
        path: _commit_entry(_find_origin(path, sha256, chain, trees))
        for path, sha256 in trees.get(revision.pk, {}).items()
    }


def _find_origin(
    path: str, sha256: str, chain: Sequence[Any], trees: Mapping[int, Mapping[str, str]]
) -> Any:
    origin = chain[0]
    for commit in chain:
        if trees.get(commit.pk, {}).get(path) != sha256:
            break
        origin = commit
    return origin


def _commit_entry(commit: Any) -> Entry:
    return {"id": commit.oid, "title": commit.title, "date": utc(commit.created_at)}


def _folder_entry(path: str, held: Iterable[RevisionFile]) -> Entry:
    digest = hashlib.sha1(usedforsecurity=False)
    for file in sorted(held, key=lambda file: file.path):
        digest.update(f"{git_oid(file.path, file.blob)} {file.path}\n".encode())
    return {"type": "directory", "oid": digest.hexdigest(), "size": 0, "path": path}


def _lfs_sizes(blob: Blob) -> Entry:
    return {"size": blob.size, "pointerSize": len(pointer_text(blob.sha256, blob.size))}


def _is_in(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")
