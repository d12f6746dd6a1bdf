"""Pages of the JSON API: `?limit=` rows (at most 100), with links to the pages beside.

Short lists are counted off by `?page=`; the shelf's own links lead on by cursor, however far.
"""

from __future__ import annotations

from typing import Any

from django.core.paginator import InvalidPage
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import PageNumberPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param

from marketplace.catalogue.search import ListPage
from marketplace.catalogue.search.pages import MAX_COUNTED

MAX_LIMIT = 100
MAX_PAGE_DIGITS = 6


class CataloguePagination(PageNumberPagination):
    """Answers {"count", "next", "previous", "results"}; a page beyond the last is empty."""

    page_size = 30
    page_size_query_param = "limit"
    max_page_size = MAX_LIMIT
    page_query_description = "Which page, from 1."
    page_size_query_description = f"Results a page, at most {MAX_LIMIT}."

    def paginate_queryset(
        self, queryset: Any, request: Request, view: Any = None
    ) -> list[Any] | None:
        """Return one page; refuse a page that is no number."""
        self.request = request
        number = read_page_number(request)
        paginator = self.django_paginator_class(queryset, self.get_page_size(request) or 1)
        try:
            self.page = paginator.page(number)
        except InvalidPage:
            self.page = paginator.page(paginator.num_pages)
            self.page.object_list = []
        return list(self.page)


class ShelfPagination(CataloguePagination):
    """The same answer for the shelf; `next` and `previous` lead on from a row, by cursor."""

    page_query_description = (
        f"Which page, from 1, within the first {MAX_COUNTED:,} results. "
        "To go through all of them, follow `next`."
    )

    def answer(self, request: Request, page: ListPage, rows: Any) -> Response:
        """Return the rows with the count and the addresses of the pages beside."""
        return Response(
            {
                "count": page.count,
                "next": _link(request, page.next),
                "previous": _link(request, page.previous),
                "results": rows,
            }
        )

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """Name the cursor as well."""
        described: list[dict[str, Any]] = super().get_schema_operation_parameters(view)
        cursor = {
            "name": "cursor",
            "required": False,
            "in": "query",
            "description": "A place in the list, as `next` and `previous` give it.",
            "schema": {"type": "string"},
        }
        return [*described, cursor]


def _link(request: Request, cursor: str) -> str | None:
    if not cursor:
        return None
    address = remove_query_param(request.build_absolute_uri(), "page")
    return str(replace_query_param(address, "cursor", cursor))


def read_page_number(request: Request) -> int:
    """Return the page asked for.

    Raises:
        ValidationError: it is no whole number from 1.
    """
    text = request.query_params.get("page", "1")
    if not (text.isascii() and text.isdigit() and int(text[: MAX_PAGE_DIGITS + 1]) > 0):
        raise ValidationError({"page": ["A page is a whole number from 1."]})
    return int(text[:MAX_PAGE_DIGITS])
