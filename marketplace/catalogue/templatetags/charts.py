"""``{% load charts %}``: the site's charts as tags, and its number formats as filters.

Tags (each takes plain dicts, dataclasses, model rows or tuples; see ``catalogue.charts``):

* ``{% gain base_loss loss %}``: the shelf row's ring and dot, with the two losses below. Draws a
  quiet "not measured" when either is None.
* ``{% weight_bars rows %}``: rows of ``name, weight[, url, note]``, kept in the given order.
  ``as_table=False`` is not offered: it is always a table with a heading row.
* ``{% loss_plot evaluations budget best_single=... uniform=... base=... %}``: rows of
  ``number, fit_loss``; and ``{% loss_legend ... %}`` with the same arguments, for the panel header.
* ``{% score_table report hints=... compact=... %}``: ``Report.to_dict()``. ``compact`` leaves out
  counts and losses (front page).
* ``{% lineage parents child %}``: parents of ``name, weight[, url, note]``; child of
  ``name[, url, notes]`` where notes are short grey lines.
* ``{% progress done total %}``: the thin bar under the figures of a job; ``noun="files"``.
* ``{% aid "owner/name" url %}``: an adapter's name, owner in grey; a link when ``url`` is given.

Filters: ``signed`` (+0.74; minus is U+2212), ``loss`` (0.33), ``percent`` (92 %, from 0.917),
``size`` (476.2 kB), ``thousands`` (1,204), ``age`` (3 hours), ``ago`` (3 hours ago, just now),
``duration`` (38 s), ``short`` (first 12 characters of a hash; ``short:8``), ``before`` (the text
before a mark), ``plural`` (``3|plural:"row,rows"`` -> "3 rows").
None is always written as a dash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from marketplace.catalogue import charts, numerals

register = template.Library()

# ---- charts -----------------------------------------------------------------------------------


@register.inclusion_tag("charts/_gain.html")
def gain(base_loss: object, loss: object, top: float = charts.GAIN_TOP) -> dict[str, Any]:
    """Draw the loss of the base (ring) and of the adapter (dot) on one scale."""
    return {"gain": charts.draw_gain(base_loss, loss, top=top)}


@register.inclusion_tag("charts/_weight_bars.html")
def weight_bars(rows: Iterable[object], heading: str = "Adapter") -> dict[str, Any]:
    """Draw signed weights as bars from a middle axis."""
    return {"chart": charts.draw_weight_bars(rows), "heading": heading}


@register.inclusion_tag("charts/_loss_plot.html")
def loss_plot(
    evaluations: Iterable[object],
    budget: int,
    best_single: object = None,
    uniform: object = None,
    base: object = None,
) -> dict[str, Any]:
    """Draw the fit loss by evaluation, with the comparison lines."""
    return {"plot": _plot(evaluations, budget, best_single, uniform, base)}


@register.inclusion_tag("charts/_loss_legend.html")
def loss_legend(
    evaluations: Iterable[object],
    budget: int,
    best_single: object = None,
    uniform: object = None,
    base: object = None,
) -> dict[str, Any]:
    """Write the legend of :func:`loss_plot` (give it the same arguments)."""
    return {"plot": _plot(evaluations, budget, best_single, uniform, base)}


def _plot(
    evaluations: Iterable[object], budget: int, best_single: object, uniform: object, base: object
) -> charts.LossPlot:
    references = charts.References(
        best_single=charts.finite(best_single),
        uniform=charts.finite(uniform),
        base=charts.finite(base),
    )
    return charts.draw_loss_plot(evaluations or (), int(budget or 0), references)


@register.inclusion_tag("charts/_score_table.html")
def score_table(
    report: object,
    hints: Mapping[str, str] | None = None,
    compact: bool = False,  # noqa: FBT001, FBT002 - a template tag's argument
) -> dict[str, Any]:
    """Draw a report's scores as bars with their 95 % intervals."""
    return {"table": charts.draw_score_table(report, hints), "compact": compact}


@register.inclusion_tag("charts/_lineage.html")
def lineage(parents: Iterable[object], child: object) -> dict[str, Any]:
    """Draw parents as strands that flow into their child."""
    return {
        "lineage": charts.draw_lineage(parents),
        "child_name": charts.read_field(child, "name", ""),
        "child_url": charts.read_field(child, "url", "") or "",
        "child_notes": charts.read_field(child, "notes", ()) or (),
    }


@register.inclusion_tag("charts/_progress.html")
def progress(done: object, total: object, noun: str = "evaluations") -> dict[str, Any]:
    """Draw a thin progress bar of known length."""
    return {"bar": charts.draw_progress(done, total, noun)}


@register.simple_tag
def aid(name: object, url: str = "") -> SafeString:
    """Write ``owner/name`` with the owner in grey; the whole is the link."""
    owner, slash, rest = str(name).rpartition("/")
    label = format_html(
        '<span class="o">{}</span>{}', _breakable(f"{owner}{slash}"), _breakable(rest)
    )
    if url:
        return format_html('<a class="aid" href="{}">{}</a>', url, label)
    return format_html('<span class="aid">{}</span>', label)


def _breakable(text: str) -> SafeString:
    """Let a long name wrap after its underscores, hyphens and slashes before anywhere else."""
    return format_html_join(mark_safe("<wbr>"), "{}", ((part,) for part in _PARTS.findall(text)))


_PARTS = re.compile(r"[^_/-]*[_/-]+|[^_/-]+")

# ---- numbers ------------------------------------------------------------------------------------


@register.filter
def signed(value: object) -> str:
    """Write a signed weight with two decimals."""
    return numerals.format_signed(charts.finite(value))


@register.filter
def loss(value: object) -> str:
    """Write a loss with two decimals."""
    return numerals.format_loss(charts.finite(value))


@register.filter
def percent(value: object) -> str:
    """Write a share from 0 to 1 as per cent."""
    return numerals.format_percent(charts.finite(value))


@register.filter
def size(value: object) -> str:
    """Write a number of bytes in decimal units."""
    return numerals.format_size(charts.finite(value))


@register.filter
def thousands(value: object) -> str:
    """Write a count with commas."""
    return numerals.format_thousands(charts.finite(value))


@register.filter
def age(value: datetime | None) -> str:
    """Write the time since a moment in its largest unit; add "ago" in the template."""
    return numerals.format_age(value or None, timezone.now())


@register.filter
def ago(value: datetime | None) -> str:
    """Write how long ago a moment was: "3 hours ago", "just now"."""
    text = age(value)
    return f"{text} ago" if text[:1].isdigit() else text


@register.filter
def before(value: object, mark: str) -> str:
    """Write what stands before a mark: the method's name without the adapter it picked."""
    return str(value).partition(mark)[0]


@register.filter
def duration(value: timedelta | float | None) -> str:
    """Write a length of time given as timedelta or seconds."""
    return numerals.format_duration(value if isinstance(value, timedelta) else charts.finite(value))


@register.filter
def short(value: object, length: int = 12) -> str:
    """Shorten a hash to its first characters; an ellipsis says that there is more."""
    text = str(value or "")
    return f"{text[:length]}…" if len(text) > length else text


@register.filter
def plural(value: object, words: str) -> str:
    """Write a count with the right word: ``{{ n|plural:"row,rows" }}``."""
    number = charts.finite(value) or 0
    one, _, many = words.partition(",")
    return f"{numerals.format_thousands(number)} {one if number == 1 else many}"
