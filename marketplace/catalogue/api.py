"""The JSON API of the shelf: search, adapters, revisions, files, lineage, tags, base models.

The same searches and services as the pages. What a reader may not see answers like what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Count, Q, prefetch_related_objects
from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.accounts.api_errors import Refused
from marketplace.accounts.serializers import ErrorSerializer
from marketplace.accounts.visitors import signed_in
from marketplace.catalogue import services
from marketplace.catalogue.lineage import list_children, list_parents
from marketplace.catalogue.models import Adapter, BaseModel, Revision, RevisionFile, Tag
from marketplace.catalogue.pagination import ShelfPagination, read_page_number
from marketplace.catalogue.search import Cursor, ListPage, read_query, search
from marketplace.catalogue.search.query import FILTERS, SORTS
from marketplace.catalogue.serializers import (
    AdapterDetailSerializer,
    AdapterSerializer,
    BaseModelDetailSerializer,
    BaseModelSerializer,
    CardSerializer,
    EdgeSerializer,
    FacetSerializer,
    FoundFileSerializer,
    LikeSerializer,
    LineageSerializer,
    RevisionDetailSerializer,
    RevisionSerializer,
    TagSerializer,
    YankSerializer,
)
from marketplace.catalogue.views.fetching import MISSING, get_adapter, get_revision

NOT_FOUND = {404: ErrorSerializer}
REFUSED = {400: ErrorSerializer, 401: ErrorSerializer, 403: ErrorSerializer, **NOT_FOUND}
FOREIGN_CURSOR = "This cursor is none of this list in this order. Begin again without it."
TOO_FAR = "Pages are counted within the first {:,} results. Follow `next` to go on from there."
SEARCH_PARAMETERS = [
    OpenApiParameter("q", str, description="Words, with or without typing mistakes."),
    OpenApiParameter("mode", str, enum=["words", "examples"]),
    OpenApiParameter("rows", str, description="With mode=examples: rows to resemble."),
    *(OpenApiParameter(name, str, many=True, explode=True) for name in FILTERS),
    OpenApiParameter("fits", str, description="owner/name: only what composes with it."),
    OpenApiParameter("by", str, enum=["factor"], description="With fits: by this merge method."),
    OpenApiParameter("rank_min", int),
    OpenApiParameter("rank_max", int),
    OpenApiParameter("sort", str, enum=[*SORTS, "best"]),
]


class AdapterList(ListAPIView[Adapter]):
    """Search the shelf."""

    serializer_class = AdapterSerializer
    pagination_class = ShelfPagination
    queryset = Adapter.objects.none()

    @extend_schema(
        parameters=SEARCH_PARAMETERS, responses={200: AdapterSerializer(many=True), **REFUSED}
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List what is found, with the count, in pages."""
        paginator = ShelfPagination()
        limit = paginator.get_page_size(request) or 1
        number = read_page_number(request)
        query = read_query(request.query_params)
        cursor = request.query_params.get("cursor", "")
        if cursor and Cursor.read(cursor, query.sort) is None:
            raise Refused({"cursor": [FOREIGN_CURSOR]})
        page = search(request.user, query, page_size=limit).page
        skipped = 0 if cursor else (number - 1) * limit
        if skipped >= page.count:
            page = ListPage([], skipped + 1, page.count)
        elif skipped >= page.reachable:
            raise Refused({"page": [TOO_FAR.format(page.reachable)]})
        return paginator.answer(request, page, AdapterSerializer(list(page), many=True).data)


class FacetList(APIView):
    """The counts beside a search."""

    @extend_schema(
        parameters=SEARCH_PARAMETERS, responses={200: FacetSerializer(many=True), **REFUSED}
    )
    def get(self, request: Request) -> Response:
        """List the facets, each with its values and counts."""
        results = search(request.user, read_query(request.query_params), page_size=1)
        return Response(FacetSerializer(results.facets, many=True).data)


class AdapterDetail(APIView):
    """One adapter."""

    @extend_schema(responses={200: AdapterDetailSerializer, **NOT_FOUND})
    def get(self, request: Request, owner: str, name: str) -> Response:
        """Return it with card, samples and current revision."""
        adapter = get_adapter(request, owner, name)
        return Response(AdapterDetailSerializer(adapter).data)

    @extend_schema(request=CardSerializer, responses={200: AdapterDetailSerializer, **REFUSED})
    def patch(self, request: Request, owner: str, name: str) -> Response:
        """Change the card, tags, licence, samples or visibility of one's own."""
        adapter = _get_own(request, owner, name)
        asked = CardSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        fields = asked.card_fields()
        _refusing(lambda: services.update_card(adapter, fields, by=signed_in(request)))
        return self.get(request, owner, name)

    @extend_schema(responses={204: None, **REFUSED})
    def delete(self, request: Request, owner: str, name: str) -> Response:
        """Delete one's own; the name is never given out again."""
        services.delete_adapter(_get_own(request, owner, name), by=signed_in(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class AdapterLike(APIView):
    """Whether one likes an adapter."""

    @extend_schema(request=None, responses={200: LikeSerializer, **REFUSED})
    def put(self, request: Request, owner: str, name: str) -> Response:
        """Like it."""
        adapter = get_adapter(request, owner, name)
        return Response({"likes": services.like(adapter, signed_in(request))})

    @extend_schema(request=None, responses={200: LikeSerializer, **REFUSED})
    def delete(self, request: Request, owner: str, name: str) -> Response:
        """Take the like back."""
        adapter = get_adapter(request, owner, name)
        return Response({"likes": services.unlike(adapter, signed_in(request))})


class AdapterLineage(APIView):
    """Where an adapter comes from and what was made of it."""

    @extend_schema(responses={200: LineageSerializer, **NOT_FOUND})
    def get(self, request: Request, owner: str, name: str) -> Response:
        """Return parents with pinned revisions and signed weights, and children."""
        adapter = get_adapter(request, owner, name)
        parents = list_parents(adapter.latest, request.user) if adapter.latest else []
        children = list_children(adapter, request.user)
        return Response(
            {
                "parents": EdgeSerializer(parents, many=True).data,
                "children": EdgeSerializer(children, many=True).data,
            }
        )


class RevisionList(ListAPIView[Revision]):
    """The revisions of an adapter, the newest first."""

    serializer_class = RevisionSerializer
    queryset = Revision.objects.none()

    @extend_schema(responses={200: RevisionSerializer(many=True), **REFUSED})
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them; yanked ones are marked."""
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        """Those the reader may see."""
        adapter = get_adapter(self.request, self.kwargs["owner"], self.kwargs["name"])
        rows = adapter.revisions.visible_to(self.request.user)
        return rows.select_related("adapter", "author", "base_model", "parent")


class RevisionDetail(APIView):
    """One revision, by v3, full id, branch or tag."""

    @extend_schema(responses={200: RevisionDetailSerializer, **NOT_FOUND})
    def get(self, request: Request, owner: str, name: str, label: str) -> Response:
        """Return it with files, facts and parents."""
        revision: Any = get_revision(request, owner, name, label)
        revision.visible_parents = list_parents(revision, request.user)
        prefetch_related_objects([revision], "files__blob")
        return Response(RevisionDetailSerializer(revision).data)


class RevisionYank(APIView):
    """Whether a revision is on the shelf."""

    @extend_schema(request=YankSerializer, responses={200: RevisionSerializer, **REFUSED})
    def put(self, request: Request, owner: str, name: str, label: str) -> Response:
        """Yank it; exact pins keep working."""
        revision = self._get_own(request, owner, name, label)
        asked = YankSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        reason = asked.validated_data["reason"]
        _refusing(lambda: services.yank_revision(revision, by=signed_in(request), reason=reason))
        return Response(RevisionSerializer(revision).data)

    @extend_schema(request=None, responses={200: RevisionSerializer, **REFUSED})
    def delete(self, request: Request, owner: str, name: str, label: str) -> Response:
        """Put it back."""
        revision = self._get_own(request, owner, name, label)
        services.unyank_revision(revision, by=signed_in(request))
        return Response(RevisionSerializer(revision).data)

    def _get_own(self, request: Request, owner: str, name: str, label: str) -> Revision:
        _get_own(request, owner, name)
        return get_revision(request, owner, name, label)


class FileLookup(ListAPIView[RevisionFile]):
    """Where a content is on the shelf."""

    serializer_class = FoundFileSerializer
    queryset = RevisionFile.objects.none()

    @extend_schema(responses={200: FoundFileSerializer(many=True), **REFUSED})
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the files with this sha256 that the reader may see."""
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        """Only files of revisions that the reader may see: others' content leaves no trace."""
        sha256 = self.kwargs["sha256"].lower().replace("\x00", "")
        visible = Revision.objects.visible_to(self.request.user)
        rows = RevisionFile.objects.filter(blob_id=sha256, revision__in=visible)
        return rows.select_related("blob", "revision__adapter").order_by("-revision_id", "path")


class TagList(ListAPIView[Tag]):
    """The tags in use."""

    serializer_class = TagSerializer
    queryset = Tag.objects.none()

    @extend_schema(
        parameters=[OpenApiParameter("q", str, description="How the tag begins.")],
        responses={200: TagSerializer(many=True), **REFUSED},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them, the most used first."""
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        """Tags of adapters that the reader may see."""
        begin = self.request.query_params.get("q", "").strip().lower().replace("\x00", "")
        visible = Adapter.objects.visible_to(self.request.user)
        counted = Tag.objects.annotate(count=Count("adapters", filter=Q(adapters__in=visible)))
        rows = counted.filter(name__startswith=begin, count__gt=0)
        return rows.order_by("-count", "name")


class BaseModelList(ListAPIView[BaseModel]):
    """The base models adapters can be made for."""

    serializer_class = BaseModelSerializer
    queryset = BaseModel.objects.defer("module_table")

    @extend_schema(responses={200: BaseModelSerializer(many=True), **REFUSED})
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them."""
        return super().get(request, *args, **kwargs)


class BaseModelDetail(APIView):
    """One base model."""

    @extend_schema(responses={200: BaseModelDetailSerializer, **NOT_FOUND})
    def get(self, request: Request, name: str) -> Response:
        """Return it with its module table."""
        base_model = BaseModel.objects.filter(name=name.replace("\x00", "")).first()
        if base_model is None:
            raise Http404(MISSING)
        return Response(BaseModelDetailSerializer(base_model).data)


def _get_own(request: Request, owner: str, name: str) -> Adapter:
    adapter = get_adapter(request, owner, name)
    if adapter.owner_id != request.user.pk:
        raise Http404(MISSING)
    return adapter


def _refusing(write: Callable[[], Any]) -> None:
    """Run a service; what it refuses becomes a 400 with the problems by field."""
    try:
        write()
    except services.CatalogueError as error:
        raise Refused(error.problems) from None
