"""Pages of the JSON API: `?page=` and `?limit=` (at most 100), with links to the pages beside."""

from __future__ import annotations

from typing import Any

from django.core.paginator import InvalidPage
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import PageNumberPagination
from rest_framework.request import Request

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


def read_page_number(request: Request) -> int:
    """Return the page asked for.

    Raises:
        ValidationError: it is no whole number from 1.
    """
    text = request.query_params.get("page", "1")
    if not (text.isascii() and text.isdigit() and int(text[: MAX_PAGE_DIGITS + 1]) > 0):
        raise ValidationError({"page": ["A page is a whole number from 1."]})
    return int(text[:MAX_PAGE_DIGITS])
