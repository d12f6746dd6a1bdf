"""Finding adapters: `query`, `matching`, `facets`, `cursors`, `pages` and the `results` of all.

Words go through PostgreSQL's full-text search and its trigrams, fused by reciprocal rank; examples
are matched with the samples that owners give. What a user may not see is never counted.
"""

from __future__ import annotations

from marketplace.catalogue.search.cursors import Cursor
from marketplace.catalogue.search.facets import Facet, FacetCount
from marketplace.catalogue.search.matching import filter_adapters, list_adapters, order_adapters
from marketplace.catalogue.search.pages import ListPage
from marketplace.catalogue.search.query import SORTS, CatalogueQuery, read_query
from marketplace.catalogue.search.results import Chip, SearchResults, search

__all__ = [
    "SORTS",
    "CatalogueQuery",
    "Chip",
    "Cursor",
    "Facet",
    "FacetCount",
    "ListPage",
    "SearchResults",
    "filter_adapters",
    "list_adapters",
    "order_adapters",
    "read_query",
    "search",
]
