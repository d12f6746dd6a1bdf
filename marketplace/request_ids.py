"""One id for each request: in every log line, in the answer's header and on error pages.

A visitor who reports an error quotes the id; the operator finds the traceback under it. Ids sent
by a proxy are kept when they look like one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import structlog
from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

HEADER = "X-Request-Id"
_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")


@sync_and_async_middleware
def request_id_middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[..., Any]:
    """Give the request its id, log under it, and return it in a header.

    Django passes a function or a coroutine function, and wants back the same kind.
    """
    if iscoroutinefunction(get_response):

        async def answer_async(request: HttpRequest) -> HttpResponseBase:
            with structlog.contextvars.bound_contextvars(request_id=assign_id(request)):
                response: HttpResponseBase = await get_response(request)
            response.headers.setdefault(HEADER, read_id(request))
            return response

        return answer_async

    def answer(request: HttpRequest) -> HttpResponseBase:
        with structlog.contextvars.bound_contextvars(request_id=assign_id(request)):
            response: HttpResponseBase = get_response(request)
        response.headers.setdefault(HEADER, read_id(request))
        return response

    return answer


def assign_id(request: HttpRequest) -> str:
    """Take the proxy's id where it is well formed, else make one."""
    sent = request.headers.get(HEADER, "")
    request_id = sent if _ID.fullmatch(sent) else uuid4().hex
    request.META["marketplace.request_id"] = request_id
    return request_id


def read_id(request: HttpRequest) -> str:
    """Return the request's id; one that never passed the middleware gets it here."""
    return str(request.META.get("marketplace.request_id") or assign_id(request))
