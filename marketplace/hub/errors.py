"""Errors as the hub clients read them: from the response's headers, not from its body.

    HubError
    ├── Moved (307)
    ├── BadRequest (400)
    ├── BadToken (401)
    ├── RepoNotFound (401 anonymous, 404 signed in)
    ├── Gated (401 anonymous, 403 signed in)
    ├── RevisionNotFound, EntryNotFound (404)
    ├── NotAllowed (403)
    ├── WrongMethod (405)
    ├── Conflict (409)
    ├── StaleParent (412)
    ├── TooMany (429)
    └── NoRoom (507)

A private repository answers exactly as a missing one does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.http import JsonResponse

# A header holds one line of ASCII.
MAX_LINE = 500
PLAIN = str.maketrans({"“": '"', "”": '"', "…": "..."})


class HubError(Exception):
    """Ends a request with a status, a code for the client and one line for the person."""

    status = 400
    code = ""

    def __init__(self, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.message = message
        self.extra = extra

    def to_response(self) -> JsonResponse:
        """Say it in the headers (a HEAD answer has no body) and in the body.

        The clients show both unless they are equal, so what fits into a header is the same in both,
        and what does not is in the body alone.
        """
        text = self.message.translate(PLAIN)
        line = " ".join(text.split())
        fits = len(line) <= MAX_LINE
        response = JsonResponse({"error": line if fits else text, **self.extra}, status=self.status)
        response["X-Error-Message"] = (
            line.encode("ascii", "replace").decode() if fits else "What is wrong:"
        )
        if self.code:
            response["X-Error-Code"] = self.code
        if self.status == 401:  # noqa: PLR2004
            response["WWW-Authenticate"] = "Bearer"
        return response


class Moved(HubError):
    """The repository has another name now; the clients follow, with method and body."""

    status = 307

    def __init__(self, location: str) -> None:
        super().__init__("This repository has moved")
        self.location = location

    def to_response(self) -> JsonResponse:
        """Lead there; the address has no host, so that clients keep the one they know."""
        response = super().to_response()
        response["Location"] = self.location
        return response


class BadRequest(HubError):
    """The request's content is not acceptable; the text lists every reason."""


class BadToken(HubError):
    """The token is unknown, expired or revoked; the clients look for exactly this text."""

    status = 401

    def __init__(self) -> None:
        super().__init__("Invalid credentials in Authorization header")


class RepoNotFound(HubError):
    """No such repository, or none that the caller may know of."""

    code = "RepoNotFound"

    def __init__(self, *, signed_in: bool) -> None:
        super().__init__("Repository not found")
        self.status = 404 if signed_in else 401


class Gated(HubError):
    """The repository is listed, but its files are only for people its owner let in."""

    code = "GatedRepo"

    def __init__(self, name: str, *, signed_in: bool) -> None:
        super().__init__(
            f"Access to {name} is restricted. Ask its owner for access on the adapter's page."
            if signed_in
            else f"Access to {name} is restricted. Sign in with a token to ask for access."
        )
        self.status = 403 if signed_in else 401


class RevisionNotFound(HubError):
    """No branch, tag or commit of this name."""

    status = 404
    code = "RevisionNotFound"

    def __init__(self, revision: str) -> None:
        super().__init__(f"Invalid rev id: {revision}")


class EntryNotFound(HubError):
    """No such file or folder in the revision."""

    status = 404
    code = "EntryNotFound"

    def __init__(self, message: str, *, commit: str = "") -> None:
        super().__init__(message)
        self.commit = commit

    def to_response(self) -> JsonResponse:
        """Name the commit that was looked at; clients cache the absence under it."""
        response = super().to_response()
        if self.commit:
            response["X-Repo-Commit"] = self.commit
        return response


class NotAllowed(HubError):
    """The caller is known and may not do this."""

    status = 403


class WrongMethod(HubError):
    """The address exists, but not for this method."""

    status = 405

    def __init__(self, allowed: Collection[str]) -> None:
        super().__init__("This address answers " + " and ".join(allowed) + " alone")
        self.allowed = allowed

    def to_response(self) -> JsonResponse:
        """Name the methods there are."""
        response = super().to_response()
        response["Allow"] = ", ".join(self.allowed)
        return response


class Conflict(HubError):
    """It exists already."""

    status = 409


class StaleParent(HubError):
    """The branch has moved on since the client looked."""

    status = 412


class TooMany(HubError):
    """More than anybody needs; clients wait and try again."""

    status = 429

    def __init__(self, message: str, *, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds

    def to_response(self) -> JsonResponse:
        """Say when it is worth trying again."""
        response = super().to_response()
        response["Retry-After"] = str(self.seconds)
        return response


class NoRoom(HubError):
    """The disk is full; clients do not try this again by themselves."""

    status = 507
