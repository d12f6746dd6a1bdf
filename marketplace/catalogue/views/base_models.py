"""The base models that adapters can be made for, and the page of one."""

from __future__ import annotations

from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from marketplace.catalogue.models import Adapter, BaseModel
from marketplace.catalogue.search import list_adapters, order_adapters

MOST_USED = 6
MODULES_SHOWN = 400


@require_safe
def list_base_models(request: HttpRequest) -> HttpResponse:
    """List them with the number of adapters that the visitor may see."""
    visible = Adapter.objects.visible_to(request.user)
    rows = BaseModel.objects.defer("module_table").annotate(
        adapter_count=Count("adapters", filter=Q(adapters__in=visible))
    )
    context = {"nav": "catalogue", "base_models": rows.order_by("-adapter_count", "name")}
    return render(request, "catalogue/base_models.html", context)


@require_safe
def show_base_model(request: HttpRequest, name: str) -> HttpResponse:
    """Show one: source, licence, layers, and its most used adapters."""
    base_model = BaseModel.objects.filter(name=name.replace("\x00", "")).first()
    if base_model is None:
        raise Http404("There is no such base model.")
    visible = Adapter.objects.visible_to(request.user).filter(base_model=base_model)
    modules = sorted(base_model.module_table.items())
    context = {
        "nav": "catalogue",
        "base_model": base_model,
        "adapter_count": visible.count(),
        "adapters": order_adapters(visible & list_adapters(), "used")[:MOST_USED],
        "modules": modules[:MODULES_SHOWN],
        "more_modules": max(len(modules) - MODULES_SHOWN, 0),
        "kinds": sorted({path.rpartition(".")[2] for path, _ in modules}),
    }
    return render(request, "catalogue/base_model.html", context)
