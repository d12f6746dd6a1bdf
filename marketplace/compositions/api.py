"""The JSON API of jobs: start, watch, stop, repeat, publish.

The same services as the pages. A job of somebody else answers like a missing one. The header
`Idempotency-Key` makes starting and cloning safe to repeat: the same key gives the same job.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404, HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.accounts.models import User
from marketplace.accounts.permissions import SignedIn
from marketplace.accounts.serializers import ErrorSerializer
from marketplace.accounts.visitors import signed_in
from marketplace.catalogue.models import BaseModel, Revision
from marketplace.compositions import services
from marketplace.compositions.estimating import Plan, estimate
from marketplace.compositions.models import CompositionJob, Evaluation, ResultFile
from marketplace.compositions.serializers import (
    CheckSerializer,
    EvaluationSerializer,
    JobDetailSerializer,
    JobSerializer,
    NewJobSerializer,
    PublishSerializer,
    ResultFileSerializer,
)
from marketplace.compositions.services import CompositionError, CompositionRequest
from marketplace.compositions.views.fetching import get_job
from marketplace.compositions.views.results import file_response

HEADER = "Idempotency-Key"
KEY_PARAMETER = OpenApiParameter(
    HEADER, str, OpenApiParameter.HEADER, description="The same key gives the same job."
)
MINE = {401: ErrorSerializer, 403: ErrorSerializer, 404: ErrorSerializer}
REFUSED = {400: ErrorSerializer, **MINE}


class JobList(ListAPIView[CompositionJob]):
    """The caller's jobs."""

    permission_classes = (SignedIn,)
    serializer_class = JobSerializer
    queryset = CompositionJob.objects.none()

    @extend_schema(
        parameters=[OpenApiParameter("state", str, enum=CompositionJob.State.values)],
        responses={200: JobSerializer(many=True), **REFUSED},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them, the newest first."""
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        """Only one's own."""
        jobs = CompositionJob.objects.owned_by(self.request.user)
        state = self.request.query_params.get("state", "")
        if state in CompositionJob.State.values:
            jobs = jobs.filter(state=state)
        return jobs.select_related("base_model", "published__adapter__owner")

    @extend_schema(
        parameters=[KEY_PARAMETER],
        request=NewJobSerializer,
        responses={202: JobDetailSerializer, **REFUSED},
    )
    def post(self, request: Request) -> Response:
        """Start a job; a worker takes it from the queue."""
        job = services.start_composition(_read(request))
        return Response(JobDetailSerializer(job).data, status=status.HTTP_202_ACCEPTED)


class JobCheck(APIView):
    """What a request comes to."""

    permission_classes = (SignedIn,)

    @extend_schema(request=NewJobSerializer, responses={200: CheckSerializer, **REFUSED})
    def post(self, request: Request) -> Response:
        """Check a request without starting it: problems, split, merge methods, cost."""
        asked = _read(request)
        checked = services.check_composition(asked)
        split = checked.split
        plan = Plan.of(checked.options, checked.pool, split, is_searched=asked.hand_weights is None)
        cost = estimate(checked.base_model, plan)
        answer = {
            "problems": checked.problems,
            "adapters": len(checked.pool),
            "n_fit": len(split.fit) if split else 0,
            "n_held_out": len(split.held_out) if split else 0,
            "methods": checked.compatibility.methods,
            "seconds": cost.seconds,
            "memory": cost.memory,
        }
        return Response(CheckSerializer(answer).data)


class JobDetail(APIView):
    """One job."""

    permission_classes = (SignedIn,)

    @extend_schema(responses={200: JobDetailSerializer, **MINE})
    def get(self, request: Request, pk: UUID) -> Response:
        """Return it with its pool and figures."""
        return Response(JobDetailSerializer(get_job(request, pk)).data)


class JobEvaluations(ListAPIView[Evaluation]):
    """The evaluations of a job."""

    permission_classes = (SignedIn,)
    serializer_class = EvaluationSerializer
    queryset = Evaluation.objects.none()

    @extend_schema(
        parameters=[OpenApiParameter("after", int, description="Only later numbers.")],
        responses={200: EvaluationSerializer(many=True), **REFUSED},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them in order; number 0 is the base alone."""
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        """Those of one's own job."""
        rows = get_job(self.request, self.kwargs["pk"]).evaluations.all()
        after = self.request.query_params.get("after", "")
        is_number = after.isascii() and after.isdigit() and len(after) < 9  # noqa: PLR2004
        return rows.filter(number__gt=int(after)) if is_number else rows


class JobReport(APIView):
    """The report of a finished job."""

    permission_classes = (SignedIn,)

    @extend_schema(responses={200: OpenApiTypes.OBJECT, **MINE})
    def get(self, request: Request, pk: UUID) -> Response:
        """Return it; there is none before the job has succeeded."""
        report = get_job(request, pk).report
        if report is None:
            raise Http404
        return Response(report)


class JobExamples(APIView):
    """The rows of a job."""

    permission_classes = (SignedIn,)

    @extend_schema(responses={204: None, **REFUSED})
    def delete(self, request: Request, pk: UUID) -> Response:
        """Delete them, in the report as well; weights and figures stay."""
        services.forget_examples(get_job(request, pk))
        return Response(status=status.HTTP_204_NO_CONTENT)


class JobCancel(APIView):
    """Stopping a job."""

    permission_classes = (SignedIn,)

    @extend_schema(request=None, responses={200: JobDetailSerializer, **MINE})
    def post(self, request: Request, pk: UUID) -> Response:
        """Cancel it; a running one stops within seconds, one that is over stays as it is."""
        job = services.cancel_composition(get_job(request, pk))
        return Response(JobDetailSerializer(job).data)


class JobRetry(APIView):
    """Repeating a job that failed."""

    permission_classes = (SignedIn,)

    @extend_schema(request=None, responses={202: JobDetailSerializer, **REFUSED})
    def post(self, request: Request, pk: UUID) -> Response:
        """Queue a failed or cancelled job again."""
        job = services.retry_composition(get_job(request, pk))
        return Response(JobDetailSerializer(job).data, status=status.HTTP_202_ACCEPTED)


class JobClone(APIView):
    """Repeating a job as a new one."""

    permission_classes = (SignedIn,)

    @extend_schema(
        parameters=[KEY_PARAMETER], request=None, responses={202: JobDetailSerializer, **REFUSED}
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """Start a new job with the same adapters, rows and settings."""
        key = request.headers.get(HEADER, "")
        job = services.clone_composition(
            get_job(request, pk), by=signed_in(request), idempotency_key=key
        )
        return Response(JobDetailSerializer(job).data, status=status.HTTP_202_ACCEPTED)


class JobPublish(APIView):
    """Putting a result on the shelf."""

    permission_classes = (SignedIn,)

    @extend_schema(request=PublishSerializer, responses={201: JobDetailSerializer, **REFUSED})
    def post(self, request: Request, pk: UUID) -> Response:
        """Publish it; a second time changes nothing and answers the same."""
        job = get_job(request, pk)
        asked = PublishSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        filled = services.prefill_publication(job)
        services.publish_composition(job, asked.publish_request(filled))
        return Response(JobDetailSerializer(job).data, status=status.HTTP_201_CREATED)


class JobFiles(ListAPIView[ResultFile]):
    """The files of a result."""

    permission_classes = (SignedIn,)
    serializer_class = ResultFileSerializer
    queryset = ResultFile.objects.none()

    @extend_schema(responses={200: ResultFileSerializer(many=True), **MINE})
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them."""
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        """Those of one's own job."""
        return get_job(self.request, self.kwargs["pk"]).results.select_related("blob")


class JobFile(APIView):
    """One file of a result."""

    permission_classes = (SignedIn,)

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, **MINE})
    def get(self, request: Request, pk: UUID, path: str) -> HttpResponseBase:
        """Send it; ranges and ETags work."""
        return file_response(request._request, get_job(request, pk), path)


def _read(request: Request) -> CompositionRequest:
    """Turn the body into a request; adapters that cannot be found are named."""
    asked = NewJobSerializer(data=request.data)
    asked.is_valid(raise_exception=True)
    given = asked.validated_data
    owner = signed_in(request)
    problems: dict[str, list[str]] = {}
    revisions = [
        revision
        for name in given.get("adapters", ())
        if (revision := _find_revision(owner, name, problems)) is not None
    ]
    base = BaseModel.objects.filter(
        name=given.get("base_model", "").replace("\x00", ""), state=BaseModel.State.READY
    ).first()
    if given.get("base_model") and base is None:
        problems["base_model"] = ["There is no such base model. See /api/v1/base-models."]
    if problems:
        raise CompositionError(problems)
    return CompositionRequest(
        owner=owner,
        revisions=revisions,
        pick_for_me=given.get("pick_for_me", False),
        base_model=base,
        examples=given.get("examples", ""),
        rows=asked.typed_rows("rows"),
        held_out=asked.typed_rows("held_out"),
        instruction=given.get("instruction", ""),
        title=given.get("title", ""),
        n_fit=given.get("n_fit"),
        hand_weights=given.get("hand_weights"),
        idempotency_key=request.headers.get(HEADER, ""),
        options=asked.options(),
    )


def _find_revision(owner: User, text: str, problems: dict[str, list[str]]) -> Revision | None:
    """Find owner/name or owner/name@revision; a private one of others is missing, too."""
    full_name, _, label = text.replace("\x00", "").partition("@")
    user_name, _, name = full_name.partition("/")
    visible = Revision.objects.readable_files_by(owner).on_shelf().of(user_name, name)
    revision = visible.select_related("adapter__owner").at(label or "main")
    if revision is None:
        sentence = f"There is no adapter {text}, or it is not on the shelf. Check owner/name."
        problems.setdefault("adapters", []).append(sentence)
    return revision
