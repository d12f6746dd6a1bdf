"""Push a folder to another hub with `huggingface_hub`; a process of its own, started by `pushing`.

The order comes as JSON on standard input, the token in it: neither arguments nor environment show
it. Progress goes out as JSON lines, the last one holds the commit or the failure. The client's HTTP
goes through `guarded_transport`; its Xet part, which connects by itself, is off.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils._http import hf_request_event_hook

from marketplace.uploads.guarded_transport import AddressRefused, Rules, make_client

ANSWER_SECONDS = 60.0  # the other side hashes and checks what it was sent
TELL_SECONDS = 0.3


class _Teller:
    """Writes lines for the parent, from whichever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent = 0
        self._told_at = 0.0

    def count(self, size: int) -> None:
        """Add to the bytes that went out."""
        with self._lock:
            self._sent += size
            if time.monotonic() - self._told_at > TELL_SECONDS:
                self._told_at = time.monotonic()
                self._write({"sent": self._sent})

    def tell(self, **line: Any) -> None:
        """Write one line."""
        with self._lock:
            self._write(line)

    @staticmethod
    def _write(line: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Read the order, do it, and say how it ended."""
    order = json.load(sys.stdin)
    teller = _Teller()
    rules = Rules(order["hub"], tuple(order["file_hosts"]), tuple(order["internal"]))
    set_client_factory(lambda: _make_client(rules, teller))
    try:
        teller.tell(**_push(order, teller))
    except (HfHubHTTPError, AddressRefused, httpx2.HTTPError, OSError, ValueError) as error:
        teller.tell(**_explain(error, order))


def _make_client(rules: Rules, teller: _Teller) -> httpx2.Client:
    return make_client(
        rules,
        idle_seconds=ANSWER_SECONDS,
        on_sent=teller.count,
        follow_redirects=True,
        max_redirects=3,
        event_hooks={"request": [hf_request_event_hook]},
    )


def _push(order: dict[str, Any], teller: _Teller) -> dict[str, Any]:
    api = HfApi(endpoint=order["hub"], token=order["token"])
    teller.tell(phase="creating")
    api.create_repo(order["repo_id"], private=order["private"], exist_ok=True)
    teller.tell(phase="sending")
    commit = api.upload_folder(
        repo_id=order["repo_id"],
        folder_path=Path(order["folder"]),
        commit_message=order["title"],
        commit_description=order["message"],
    )
    return {"commit": commit.oid, "url": commit.commit_url}


def _explain(error: Exception, order: dict[str, Any]) -> dict[str, Any]:
    """Turn what the client raises into a code, a sentence and what to do."""
    where = f"{order['hub']}/{order['repo_id']}"
    if isinstance(error, AddressRefused):
        return _failure("address", str(error))
    if isinstance(error, RepositoryNotFoundError):
        return _failure(
            "repo_not_found", f"{where} cannot be written with this token.",
            "Give a token of that hub that may write there.",
        )  # fmt: skip
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code if error.response is not None else 0
        told = (error.server_message or "").strip()[:1500]
        if status in {401, 403}:
            fix = "Give a token of that hub that may write there."
            return _failure("not_allowed", f"{where} may not be written: {told or status}.", fix)
        return _failure("hub", f"{order['hub']} refuses with {status}: {told or 'no reason told'}.")
    if isinstance(error, httpx2.HTTPError):
        text = f"The connection to {order['hub']} failed: {error}."
        return _failure("connection", text, "Try again later.")
    return _failure("hub", f"{order['hub']} answers what cannot be understood: {error}")


def _failure(code: str, text: str, fix: str = "") -> dict[str, Any]:
    return {"code": code, "error": text, "fix": fix}


if __name__ == "__main__":
    main()
