"""Query parameters as the clients write them: repeated keys, three ways to say true."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse, QueryDict

from marketplace.hub.addresses import is_storable

TRUE = frozenset({"true", "1", "yes"})


def is_true(parameters: QueryDict | Mapping[str, str], name: str) -> bool:
    """Tell whether a switch is on."""
    return str(parameters.get(name, "")).lower() in TRUE


def read_list(parameters: QueryDict, name: str) -> list[str]:
    """Return the values of a repeated key, of `key[]` as well, and of commas within one value."""
    values = parameters.getlist(name) + parameters.getlist(f"{name}[]")
    words = [word.strip() for value in values for word in value.split(",")]
    return [word for word in words if word and is_storable(word)]


def link_next(response: HttpResponse, request: HttpRequest, path: str, **changed: str) -> None:
    """Say in the header where the next page is: this address with another cursor."""
    parameters = request.GET.copy()
    for name, value in changed.items():
        parameters[name] = value
    query = urlencode([(key, value) for key, values in parameters.lists() for value in values])
    response["Link"] = f'<{settings.PUBLIC_URL}{path}?{query}>; rel="next"'
