"""The JSON API of uploads: begin a draft, send its files, have it checked, publish it.

The same services as the pages, whose script uses it as well. A draft of somebody else answers like
a missing one. A file's body is streamed: see `marketplace.request_bodies`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.exceptions import APIException
from rest_framework.generics import ListAPIView
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.accounts.api_errors import Refused
from marketplace.accounts.permissions import SignedIn
from marketplace.accounts.serializers import ErrorSerializer
from marketplace.accounts.throttling import ScopedThrottle, UserThrottle
from marketplace.accounts.visitors import signed_in
from marketplace.request_bodies import ClientGone, ClientTooSlow, read_chunks
from marketplace.uploads import services
from marketplace.uploads.errors import Busy, UploadError
from marketplace.uploads.models import Upload
from marketplace.uploads.serializers import (
    DraftSerializer,
    UploadedFileSerializer,
    UploadSerializer,
    ValidateSerializer,
)
from marketplace.uploads.services import Announced
from marketplace.uploads.views import get_upload

MINE = {401: ErrorSerializer, 403: ErrorSerializer, 404: ErrorSerializer}
REFUSED = {400: ErrorSerializer, 409: ErrorSerializer, **MINE}
TOO_LARGE = {413: ErrorSerializer, 422: ErrorSerializer, 507: ErrorSerializer}
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)\Z")
_Result = TypeVar("_Result")


class UploadList(ListAPIView[Upload]):
    """The caller's drafts."""

    permission_classes = (SignedIn,)
    serializer_class = UploadSerializer
    queryset = Upload.objects.none()
    throttle_scope = "uploads"

    def get_throttles(self) -> list[Any]:
        """Beginning drafts is counted by itself; listing them is a request like any other."""
        return [ScopedThrottle() if self.request.method == "POST" else UserThrottle()]

    def get_queryset(self) -> Any:
        """Only one's own, without those that are published."""
        drafts = Upload.objects.owned_by(self.request.user).open()
        return drafts.select_related("base_model").prefetch_related("files")

    @extend_schema(responses={200: UploadSerializer(many=True), **MINE})
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them, the one changed last first."""
        return super().get(request, *args, **kwargs)

    @extend_schema(request=DraftSerializer, responses={201: UploadSerializer, **REFUSED})
    def post(self, request: Request) -> Response:
        """Begin a draft; the card may be given now or later."""
        asked = DraftSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        upload = _refusing(lambda: services.create_upload(signed_in(request)))
        services.update_draft_card(upload, asked.typed())
        return Response(UploadSerializer(upload).data, status=status.HTTP_201_CREATED)


class UploadDetail(APIView):
    """One draft."""

    permission_classes = (SignedIn,)

    @extend_schema(responses={200: UploadSerializer, **MINE})
    def get(self, request: Request, pk: UUID) -> Response:
        """Return it with its files and what the check said."""
        return Response(UploadSerializer(get_upload(request, pk)).data)

    @extend_schema(request=DraftSerializer, responses={200: UploadSerializer, **REFUSED})
    def patch(self, request: Request, pk: UUID) -> Response:
        """Change the card; it is checked when it is published."""
        upload = get_upload(request, pk)
        asked = DraftSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        _refusing(lambda: services.update_draft_card(upload, asked.typed()))
        return Response(UploadSerializer(upload).data)

    @extend_schema(responses={204: None, **MINE})
    def delete(self, request: Request, pk: UUID) -> Response:
        """Discard it and its files."""
        services.discard_upload(get_upload(request, pk))
        return Response(status=status.HTTP_204_NO_CONTENT)


class RawParser(BaseParser):
    """Leaves the body alone, whatever it says it is: the view streams it."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        """Read nothing."""
        return {}


class UploadFile(APIView):
    """One file of a draft."""

    permission_classes = (SignedIn,)
    parser_classes = (RawParser,)

    @extend_schema(
        request={"application/octet-stream": OpenApiTypes.BINARY},
        parameters=[
            OpenApiParameter("offset", int, description="Where to go on; see `received`."),
            OpenApiParameter("size", int, description="Of the whole file, where offset is given."),
            OpenApiParameter("sha256", str, description="Of the whole file, to be compared."),
            OpenApiParameter(
                "Content-Range", str, OpenApiParameter.HEADER, description="Instead of offset."
            ),
        ],
        responses={200: UploadedFileSerializer, **REFUSED, **TOO_LARGE},
    )
    def put(self, request: Request, pk: UUID, path: str) -> Response:
        """Send its bytes as the body, whole or from an offset on."""
        upload = get_upload(request, pk)
        announced = _read_announced(request)
        chunks = read_chunks(request._request)
        row = _refusing(lambda: services.receive_file(upload, path, chunks, announced))
        return Response(UploadedFileSerializer(row).data)

    @extend_schema(responses={204: None, **REFUSED})
    def delete(self, request: Request, pk: UUID, path: str) -> Response:
        """Take it out of the draft."""
        upload = get_upload(request, pk)
        _refusing(lambda: services.remove_file(upload, path))
        return Response(status=status.HTTP_204_NO_CONTENT)


class UploadValidate(APIView):
    """The check of a draft."""

    permission_classes = (SignedIn,)

    @extend_schema(request=ValidateSerializer, responses={200: UploadSerializer, **REFUSED})
    def post(self, request: Request, pk: UUID) -> Response:
        """Have the files checked; the answer's state is ready, or refused with all problems."""
        upload = get_upload(request, pk)
        asked = ValidateSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        base_model = asked.validated_data.get("base_model")
        _refusing(lambda: services.validate_upload(upload, base_model=base_model))
        return Response(UploadSerializer(upload).data)


class UploadPublish(APIView):
    """Publishing a draft."""

    permission_classes = (SignedIn,)

    @extend_schema(request=None, responses={200: UploadSerializer, **REFUSED, 507: ErrorSerializer})
    def post(self, request: Request, pk: UUID) -> Response:
        """Put it on the shelf, as an adapter or a new version of one; twice is once."""
        upload = get_upload(request, pk)
        _refusing(lambda: services.publish_upload(upload))
        return Response(UploadSerializer(upload).data)


class _Slow(APIException):
    status_code = status.HTTP_408_REQUEST_TIMEOUT
    default_detail = "The file came in too slowly. What arrived is kept: go on from there."


def _refusing(do: Callable[[], _Result]) -> _Result:
    """Turn what the services refuse into the API's answers."""
    try:
        return do()
    except Busy as error:
        refused = Refused(error.problems, code=error.status)
        refused.wait = error.retry_after  # type: ignore[attr-defined] # becomes Retry-After
        raise refused from error
    except UploadError as error:
        raise Refused(error.problems, code=error.status) from error
    except (ClientTooSlow, ClientGone) as error:
        raise _Slow from error


def _read_announced(request: Request) -> Announced:
    """Read size and offset from the address or from Content-Range, the size else from its length.

    Raises:
        Refused: they cannot be read or contradict each other.
    """
    header = request.headers.get("Content-Range", "")
    match = _CONTENT_RANGE.match(header)
    if header and not match:
        raise Refused({"Content-Range": ["Write it as: bytes FIRST-LAST/SIZE."]})
    if match:
        size = None if match[3] == "*" else int(match[3])
        return Announced(size=size, offset=int(match[1]), sha256=_read_hash(request))
    offset = _read_number(request, "offset") or 0
    size = _read_number(request, "size")
    length = request.headers.get("content-length") or ""
    if size is None and length.isdigit() and "Transfer-Encoding" not in request.headers:
        size = offset + int(length)
    return Announced(size=size, offset=offset, sha256=_read_hash(request))


def _read_number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise Refused({name: [f"“{text[:20]}” is no number of bytes."]})
    return int(text)


def _read_hash(request: Request) -> str:
    text = request.query_params.get("sha256", "")
    if text and not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise Refused({"sha256": ["A sha256 has 64 hexadecimal digits."]})
    return text.lower()
