"""The JSON API of uploads: make a draft, send its files, have them checked, publish.

A file is the raw body of a PUT, read in pieces; its length is checked before the first byte is.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import ScopedRateThrottle
from rest_framework.views import APIView

from marketplace.accounts.api_errors import Refused
from marketplace.accounts.models import User
from marketplace.accounts.permissions import SignedIn
from marketplace.accounts.serializers import ErrorSerializer
from marketplace.catalogue.models import BaseModel
from marketplace.uploads import services
from marketplace.uploads.errors import UploadError
from marketplace.uploads.models import Upload
from marketplace.uploads.serializers import (
    CardSerializer,
    CheckSerializer,
    UploadedFileSerializer,
    UploadSerializer,
)

READ_BYTES = 1024 * 1024
ERRORS = dict.fromkeys((400, 401, 403, 404, 409), ErrorSerializer)


class RawParser(BaseParser):
    """Leaves the body alone: the view reads it in pieces."""

    media_type = "*/*"

    def parse(
        self, stream: object, media_type: object = None, parser_context: object = None
    ) -> object:
        """Return nothing; `request.data` is not used."""
        return {}


class UploadView(APIView):
    """What every view of drafts shares: a draft exists for its owner alone."""

    permission_classes = (SignedIn,)

    def handle_exception(self, exc: Exception) -> Response:
        """Turn an upload's refusal into our form of errors."""
        if isinstance(exc, UploadError):
            exc = Refused(exc.problems, code=exc.status)
        return super().handle_exception(exc)

    def find(self, request: Request, pk: UUID) -> Upload:
        """Return the user's own draft."""
        rows = Upload.objects.owned_by(request.user).prefetch_related("files")
        upload = rows.filter(pk=pk).first()
        if upload is None:
            raise Http404
        return upload


class Uploads(UploadView):
    """The user's drafts."""

    throttle_classes = (ScopedRateThrottle,)

    def get_throttles(self) -> list[ScopedRateThrottle]:  # type: ignore[override]
        """Only beginning a draft is counted."""
        self.throttle_scope = "uploads" if self.request.method == "POST" else None
        return [ScopedRateThrottle()]

    @extend_schema(responses={200: UploadSerializer(many=True), **ERRORS})
    def get(self, request: Request) -> Response:
        """List the unfinished ones."""
        drafts = Upload.objects.owned_by(request.user).open().prefetch_related("files")
        return Response(UploadSerializer(drafts, many=True).data)

    @extend_schema(request=CardSerializer, responses={201: UploadSerializer, **ERRORS})
    def post(self, request: Request) -> Response:
        """Begin a draft, with the card's fields if they are known already."""
        card = CardSerializer(data=request.data)
        card.is_valid(raise_exception=True)
        assert isinstance(request.user, User)  # noqa: S101 (SignedIn saw to it)
        upload = services.create_upload(request.user, **card.validated_data)
        return Response(UploadSerializer(upload).data, status=status.HTTP_201_CREATED)


class OneUpload(UploadView):
    """One draft."""

    @extend_schema(responses={200: UploadSerializer, **ERRORS})
    def get(self, request: Request, pk: UUID) -> Response:
        """Read it."""
        return Response(UploadSerializer(self.find(request, pk)).data)

    @extend_schema(request=CardSerializer, responses={200: UploadSerializer, **ERRORS})
    def patch(self, request: Request, pk: UUID) -> Response:
        """Change fields of its card."""
        card = CardSerializer(data=request.data)
        card.is_valid(raise_exception=True)
        upload = services.update_draft_card(self.find(request, pk), card.validated_data)
        return Response(UploadSerializer(upload).data)

    @extend_schema(responses={204: None, **ERRORS})
    def delete(self, request: Request, pk: UUID) -> Response:
        """Discard it and its files."""
        services.discard_upload(self.find(request, pk))
        return Response(status=status.HTTP_204_NO_CONTENT)


class OneFile(UploadView):
    """One file of a draft."""

    parser_classes = (RawParser,)

    @extend_schema(
        request={"application/octet-stream": OpenApiTypes.BINARY},
        parameters=[
            OpenApiParameter("offset", int, description="where these bytes begin; 0 begins anew"),
            OpenApiParameter("size", int, description="the whole file's length, with an offset"),
        ],
        responses={
            200: UploadedFileSerializer,
            413: ErrorSerializer,
            507: ErrorSerializer,
            **ERRORS,
        },
    )
    def put(self, request: Request, pk: UUID, path: str) -> Response:
        """Send it as the raw body; `offset` goes on with a file that was cut off."""
        upload = self.find(request, pk)
        length = _read_number(request.headers.get("Content-Length"))
        offset = _read_number(request.query_params.get("offset")) or 0
        size = _read_number(request.query_params.get("size"))
        if size is None and length is not None:
            size = offset + length
        row = services.receive_file(upload, path, _chunks(request), size=size, offset=offset)
        return Response(UploadedFileSerializer(row).data)

    @extend_schema(responses={204: None, **ERRORS})
    def delete(self, request: Request, pk: UUID, path: str) -> Response:
        """Take it out of the draft."""
        services.remove_file(self.find(request, pk), path)
        return Response(status=status.HTTP_204_NO_CONTENT)


class CheckUpload(UploadView):
    """The check of a draft's files."""

    @extend_schema(request=CheckSerializer, responses={200: UploadSerializer, **ERRORS})
    def post(self, request: Request, pk: UUID) -> Response:
        """Have them checked; the state is then `ready`, or `refused` with every problem."""
        asked = CheckSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        name = asked.validated_data.get("base_model", "")
        base = BaseModel.objects.ready().named(name) if name else None
        if name and base is None:
            raise Refused({"base_model": [f"{name[:120]} is not known here."]})
        upload = services.validate_upload(self.find(request, pk), base_model=base)
        return Response(UploadSerializer(upload).data)


class PublishUpload(UploadView):
    """The last step."""

    @extend_schema(request=None, responses={200: UploadSerializer, **ERRORS})
    def post(self, request: Request, pk: UUID) -> Response:
        """Put it on the shelf; a second time returns the same revision."""
        upload = self.find(request, pk)
        services.publish_upload(upload)
        return Response(UploadSerializer(upload).data)


def _chunks(request: Request) -> Iterator[bytes]:
    stream = request._request
    while chunk := stream.read(READ_BYTES):
        yield chunk


def _read_number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else None  # noqa: PLR2004
