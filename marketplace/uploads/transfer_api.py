"""The JSON API of imports and exports: begin one, look at it, stop it, try again.

The same services as the pages. A job of somebody else answers like a missing one.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.accounts.api_errors import Refused
from marketplace.accounts.permissions import SignedIn
from marketplace.accounts.serializers import ErrorSerializer
from marketplace.accounts.visitors import signed_in
from marketplace.catalogue.models import Revision
from marketplace.uploads import services
from marketplace.uploads.errors import UploadError
from marketplace.uploads.models import Export, Import
from marketplace.uploads.services import ExportRequest, ImportRequest
from marketplace.uploads.transfer_serializers import (
    ExportSerializer,
    ImportSerializer,
    NewExportSerializer,
    NewImportSerializer,
    RetrySerializer,
)

MINE = {401: ErrorSerializer, 403: ErrorSerializer, 404: ErrorSerializer}
REFUSED = {400: ErrorSerializer, 409: ErrorSerializer, 429: ErrorSerializer, **MINE}
_MODELS: dict[str, Any] = {"import": Import, "export": Export}
_SERIALIZERS: dict[str, Any] = {"import": ImportSerializer, "export": ExportSerializer}


def get_transfer(request: HttpRequest | Request, kind: str, pk: UUID) -> Any:
    """Return the visitor's own import or export.

    Raises:
        Http404: it is missing or somebody else's.
    """
    job = _MODELS[kind].objects.owned_by(request.user).filter(pk=pk).first()
    if job is None:
        raise Http404
    return job


def find_own_revision(request: HttpRequest | Request, adapter: str, label: str) -> Revision:
    """Return a revision of one of the visitor's adapters.

    Raises:
        Http404: there is none of that name.
    """
    owner, _, name = adapter.partition("/")
    mine = (
        Revision.objects.of(owner, name)
        .accepted()
        .filter(adapter__owner=signed_in(request), adapter__deleted_at=None)
    )
    revision = mine.at(label)
    if revision is None:
        raise Http404
    return revision


class ImportList(ListAPIView[Import]):
    """The caller's imports."""

    permission_classes = (SignedIn,)
    serializer_class = ImportSerializer
    queryset = Import.objects.none()

    def get_queryset(self) -> Any:
        """Only one's own."""
        return Import.objects.owned_by(self.request.user).select_related("revision__adapter")

    @extend_schema(responses={200: ImportSerializer(many=True), **MINE})
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them, the newest first."""
        return super().get(request, *args, **kwargs)

    @extend_schema(request=NewImportSerializer, responses={202: ImportSerializer, **REFUSED})
    def post(self, request: Request) -> Response:
        """Import an adapter from another hub; a worker does it."""
        asked = NewImportSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        fields = dict(asked.validated_data)
        job = _refusing(
            lambda: services.start_import(
                signed_in(request), ImportRequest(repo=fields.pop("repo_id"), **fields)
            )
        )
        return Response(ImportSerializer(job).data, status=status.HTTP_202_ACCEPTED)


class ExportList(ListAPIView[Export]):
    """The caller's exports."""

    permission_classes = (SignedIn,)
    serializer_class = ExportSerializer
    queryset = Export.objects.none()

    def get_queryset(self) -> Any:
        """Only one's own."""
        return Export.objects.owned_by(self.request.user).select_related("revision__adapter")

    @extend_schema(responses={200: ExportSerializer(many=True), **MINE})
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them, the newest first."""
        return super().get(request, *args, **kwargs)

    @extend_schema(request=NewExportSerializer, responses={202: ExportSerializer, **REFUSED})
    def post(self, request: Request) -> Response:
        """Push a version of one's own adapter to another hub; a worker does it."""
        asked = NewExportSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        fields = dict(asked.validated_data)
        revision = find_own_revision(request, fields.pop("adapter"), fields.pop("revision"))
        job = _refusing(
            lambda: services.start_export(
                signed_in(request), ExportRequest(revision=revision, **fields)
            )
        )
        return Response(ExportSerializer(job).data, status=status.HTTP_202_ACCEPTED)


class _Detail(APIView):
    permission_classes = (SignedIn,)
    kind = ""

    def answer(self, job: Any) -> Response:
        """Return the job as JSON."""
        return Response(_SERIALIZERS[self.kind](job).data)


class ImportDetail(_Detail):
    """One import."""

    kind = "import"

    @extend_schema(responses={200: ImportSerializer, **MINE})
    def get(self, request: Request, pk: UUID) -> Response:
        """Return how far it is."""
        return self.answer(get_transfer(request, self.kind, pk))


class ExportDetail(_Detail):
    """One export."""

    kind = "export"

    @extend_schema(responses={200: ExportSerializer, **MINE})
    def get(self, request: Request, pk: UUID) -> Response:
        """Return how far it is."""
        return self.answer(get_transfer(request, self.kind, pk))


class ImportCancel(_Detail):
    """Stopping an import."""

    kind = "import"

    @extend_schema(request=None, responses={200: ImportSerializer, **MINE})
    def post(self, request: Request, pk: UUID) -> Response:
        """Stop it; twice is once."""
        return self.answer(services.cancel_transfer(get_transfer(request, self.kind, pk)))


class ExportCancel(_Detail):
    """Stopping an export."""

    kind = "export"

    @extend_schema(request=None, responses={200: ExportSerializer, **MINE})
    def post(self, request: Request, pk: UUID) -> Response:
        """Stop it; twice is once."""
        return self.answer(services.cancel_transfer(get_transfer(request, self.kind, pk)))


class ImportRetry(_Detail):
    """Trying an import again."""

    kind = "import"

    @extend_schema(request=RetrySerializer, responses={200: ImportSerializer, **REFUSED})
    def post(self, request: Request, pk: UUID) -> Response:
        """Queue it again; what was fetched is kept."""
        return self.answer(_retry(request, get_transfer(request, self.kind, pk)))


class ExportRetry(_Detail):
    """Trying an export again."""

    kind = "export"

    @extend_schema(request=RetrySerializer, responses={200: ExportSerializer, **REFUSED})
    def post(self, request: Request, pk: UUID) -> Response:
        """Queue it again."""
        return self.answer(_retry(request, get_transfer(request, self.kind, pk)))


def _retry(request: Request, job: Any) -> Any:
    asked = RetrySerializer(data=request.data)
    asked.is_valid(raise_exception=True)
    return _refusing(lambda: services.retry_transfer(job, token=asked.validated_data["token"]))


def _refusing(do: Any) -> Any:
    """Turn what the services refuse into the API's answers."""
    try:
        return do()
    except UploadError as error:
        raise Refused(error.problems, code=error.status) from error
