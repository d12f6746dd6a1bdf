"""Read a repository of another hub by the hub protocol: what a revision holds, and its files.

Nothing that the other side says is believed further than it was checked: answers have caps on size,
time and pace, a file has the length and the ETag that the listing gave it, redirects are few and go
where `guarded_transport` allows. Whatever goes wrong ends in a HubFailure with a sentence.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2

from composer.strict_json import JSONError, parse_json
from marketplace.uploads.guarded_transport import AddressRefused, Rules, make_client

MAX_REDIRECTS = 3
MAX_INFO_BYTES = 4 * 1024 * 1024
MAX_ENTRIES = 10_000
PACE_SECONDS, PACE_BYTES = 20.0, 10 * 1024  # at least so many bytes a second, over so long
LONGEST_WAIT = 30.0
_OID = re.compile(r"[0-9a-f]{40}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15})\Z")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class HubFailure(Exception):
    """The other hub did not give what was asked; `is_passing` tells whether trying again may help.

    `code` is for programs, the text and `fix` for people.
    """

    def __init__(
        self, code: str, text: str, fix: str = "", *, is_passing: bool = False, wait: float = 0.0
    ) -> None:
        super().__init__(text)
        self.code = code
        self.fix = fix
        self.is_passing = is_passing
        self.wait = wait


@dataclass(frozen=True)
class RemoteFile:
    """One file of a revision: its length and the hash that the hub promises."""

    path: str
    size: int
    sha256: str = ""  # of files that the hub keeps as LFS
    git_sha1: str = ""  # of the others

    @property
    def etag(self) -> str:
        """What a response has to carry, where anything is known of it."""
        return self.sha256 or self.git_sha1


@dataclass(frozen=True)
class RemoteRevision:
    """What a revision resolved to."""

    commit: str
    files: tuple[RemoteFile, ...]


class HubReader:
    """Reads one repository; use as a context manager."""

    def __init__(
        self,
        rules: Rules,
        repo_id: str,
        *,
        token: str = "",
        seconds: float = 600.0,
        idle_seconds: float = 10.0,
    ) -> None:
        self._rules = rules
        self._repo_id = repo_id
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "lora-marketplace"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._has_token = bool(token)
        self._deadline = time.monotonic() + seconds
        self._client = make_client(rules, idle_seconds=idle_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def read_revision(self, revision: str) -> RemoteRevision:
        """Ask what a branch, tag or commit holds.

        Raises:
            HubFailure: there is no such thing, or the answer makes no sense.
        """
        path = f"/api/models/{self._repo_id}/revision/{quote(revision, safe='')}?blobs=true"
        with self._open(path) as response:
            body = b"".join(self._capped(response, MAX_INFO_BYTES, "Its list of files"))
        try:
            info = parse_json(body)
        except JSONError as error:
            raise self._nonsense(
                f"its description of the repository is not JSON: {error}"
            ) from None
        return self._read_info(info)

    @contextmanager
    def open_file(
        self, commit: str, file: RemoteFile, *, offset: int = 0
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Give where the bytes begin, `offset` or 0, and the bytes from there.

        Raises:
            HubFailure: the file is not there any more or is another one than the listing said.
        """
        path = f"/{self._repo_id}/resolve/{commit}/{quote(file.path)}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._open(path, headers) as response:
            start = self._check_file(response, file, offset)
            what = f"{file.path} of {file.size:,} bytes"
            yield start, self._capped(response, file.size - start, what)

    @contextmanager
    def _open(self, path: str, headers: dict[str, str] | None = None) -> Iterator[httpx2.Response]:
        """Send a GET, follow a few redirects, and give an answer that is a success."""
        url = httpx2.URL(f"{self._rules.hub}{path}")
        sent = {**self._headers, **(headers or {})}
        try:
            for _ in range(MAX_REDIRECTS + 1):
                request = self._client.build_request("GET", url, headers=sent)
                response = self._client.send(request, stream=True, follow_redirects=False)
                try:
                    if response.status_code not in _REDIRECTS:
                        self._check_status(response)
                        yield response
                        return
                    url = url.join(response.headers.get("location", ""))
                finally:
                    response.close()
        except AddressRefused as error:
            raise HubFailure("address", str(error)) from None
        except httpx2.InvalidURL as error:
            raise self._nonsense(f"it redirects to something that is no address: {error}") from None
        except httpx2.TimeoutException:
            raise HubFailure(
                "connection", f"{self._rules.hub} does not answer in time.",
                "Try again later.", is_passing=True,
            ) from None  # fmt: skip
        except httpx2.HTTPError as error:
            raise HubFailure(
                "connection", f"The connection to {self._rules.hub} failed: {error}.",
                "Try again later.", is_passing=True,
            ) from None  # fmt: skip
        raise self._nonsense(f"it redirects more than {MAX_REDIRECTS} times")

    def _capped(self, response: httpx2.Response, limit: int, what: str) -> Iterator[bytes]:
        """Yield the body as it is sent, and stop where it is too long, too slow or too late."""
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise self._nonsense("it sends a compressed answer, which was not asked for")
        received, since, in_window = 0, time.monotonic(), 0
        for chunk in response.iter_raw():  # as it comes: what is there counts if it breaks off
            received += len(chunk)
            in_window += len(chunk)
            if received > limit:
                raise HubFailure(
                    "too_large", f"{self._rules.hub} sends more than it should: {what} would "
                    f"pass {limit:,} bytes.", "Tell the people who run it."
                )  # fmt: skip
            now = time.monotonic()
            if now > self._deadline:
                raise self._too_slow("The time for this job is over")
            if now - since > PACE_SECONDS:
                if in_window < PACE_BYTES * (now - since):
                    raise self._too_slow("The bytes come too slowly")
                since, in_window = now, 0
            yield chunk

    def _too_slow(self, text: str) -> HubFailure:
        return HubFailure(
            "too_slow", f"{text}: {self._rules.hub} was stopped.",
            "Retry; what has arrived is kept and the rest is asked for.",
        )  # fmt: skip

    def _check_status(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status in {200, 206}:
            return
        where = f"{self._rules.hub}/{self._repo_id}"
        code = response.headers.get("x-error-code", "")
        if code == "RevisionNotFound":
            raise HubFailure(
                "revision_not_found", f"{where} has no such branch, tag or commit.",
                "Look up the name under “Files and versions” there.",
            )  # fmt: skip
        if code == "EntryNotFound":
            raise HubFailure("file_not_found", f"{where} does not hold this file any more.")
        if code == "GatedRepo" or status == 403:  # noqa: PLR2004
            raise HubFailure(
                "gated", f"{where} may not be read with this token."
                if self._has_token else f"{where} is only for people whom its owner let in.",
                "Ask for access on its page there, then give a token of yours that may read it.",
            )  # fmt: skip
        if status in {401, 404}:
            raise HubFailure(
                "repo_not_found", f"There is no {where}, or it is private.",
                "Check the token: it has to be one of that hub and may not be expired."
                if self._has_token
                else "Check the spelling; for a private one give a token of that hub.",
            )  # fmt: skip
        if status in {408, 429} or status >= 500:  # noqa: PLR2004
            raise HubFailure(
                "busy", f"{self._rules.hub} answers with {status}: it is busy or out of order.",
                "Try again later.", is_passing=True, wait=_read_wait(response),
            )  # fmt: skip
        raise self._nonsense(f"it answers with {status}")

    def _check_file(self, response: httpx2.Response, file: RemoteFile, offset: int) -> int:
        """Return where the body begins; refuse another file than the listing promised."""
        etag = response.headers.get("x-linked-etag") or response.headers.get("etag") or ""
        etag = etag.removeprefix("W/").strip('"')
        if file.etag and _is_hash(etag) and etag != file.etag:
            raise HubFailure(
                "changed", f"{file.path} is not the file that {self._rules.hub} listed.",
                "Retry; if it happens again, tell the people who run that hub.",
            )  # fmt: skip
        if response.status_code != 206:  # noqa: PLR2004
            return 0
        match = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
        if not match or int(match[1]) != offset or int(match[2]) != file.size:
            raise self._nonsense(f"it sends another part of {file.path} than was asked for")
        return offset

    def _read_info(self, info: Any) -> RemoteRevision:
        commit = info.get("sha") if isinstance(info, dict) else None
        entries = info.get("siblings") if isinstance(info, dict) else None
        if not isinstance(commit, str) or not _OID.match(commit) or not isinstance(entries, list):
            raise self._nonsense("its description of the repository lacks commit or files")
        if len(entries) > MAX_ENTRIES:
            raise HubFailure(
                "too_large", f"{self._repo_id} has {len(entries):,} files; at most "
                f"{MAX_ENTRIES:,} are looked at.", "A LoRA adapter has a handful of files."
            )  # fmt: skip
        return RemoteRevision(commit, tuple(filter(None, map(_read_entry, entries))))

    def _nonsense(self, text: str) -> HubFailure:
        return HubFailure(
            "protocol", f"{self._rules.hub} does not speak the hub protocol: {text}.",
            "Tell the people who run it.",
        )  # fmt: skip


def _read_entry(entry: Any) -> RemoteFile | None:
    """Return a file whose name and length are told; others cannot be fetched."""
    if not isinstance(entry, dict):
        return None
    path, size, blob = entry.get("rfilename"), entry.get("size"), entry.get("blobId")
    lfs = entry.get("lfs")
    promised = lfs.get("sha256") if isinstance(lfs, dict) else None
    if not isinstance(path, str) or type(size) is not int or size < 0:
        return None
    return RemoteFile(
        path=path,
        size=size,
        sha256=promised if isinstance(promised, str) and _SHA256.match(promised) else "",
        git_sha1=blob if isinstance(blob, str) and _OID.match(blob) and not promised else "",
    )


def _read_wait(response: httpx2.Response) -> float:
    text = response.headers.get("retry-after", "")
    return min(LONGEST_WAIT, float(text)) if text.isascii() and text.isdigit() else 0.0


def _is_hash(text: str) -> bool:
    return bool(_OID.match(text) or _SHA256.match(text))
