"""Suggest how a finished composition might be called and described, from the facts of its job.

The sentence says what of how many adapters it is and how it did on rows the search never saw, so
that whoever finds it in the catalogue reads more than a title. Its owner may write another one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from marketplace.accounts.names import MAX_NAME_LENGTH
from marketplace.catalogue.models import Adapter
from marketplace.compositions.models import CompositionJob

MAX_SUMMARY = 200
_LONGEST_NAME = 48  # an instruction as a name is cut after a word
_LEAST_TASK = 12  # fewer letters of a task than these say nothing
_UNWANTED = re.compile(r"[^a-z0-9_]+")


def suggest_name(job: CompositionJob) -> str:
    """Return a name made of the job's title that its owner has not given to any adapter yet."""
    name = _name_of(job.title) or f"composition-{job.number}"
    names = Adapter.objects.filter(owner=job.owner, name__istartswith=name)
    taken = {given.lower() for given in names.values_list("name", flat=True)}
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name}-{number}"
    return free


def suggest_summary(job: CompositionJob, *, parents: int) -> str:
    """Return a sentence on what was composed of how many adapters, and its score."""
    many = "adapter" if parents == 1 else "adapters"
    what = f"Composed of {parents} {many} of {job.base_model.short_name}"
    score = _describe_score(job.report or {})
    task = _shorten(_task_of(job), MAX_SUMMARY - len(f"{what} for “”{score}."))
    return f"{what}{f' for “{task}”' if task else ''}{score}."[:MAX_SUMMARY]


def _name_of(title: str) -> str:
    """Turn words into a name: lower case, without accents, cut after a word."""
    parts = unicodedata.normalize("NFKD", title.lower())
    plain = "".join(sign for sign in parts if not unicodedata.combining(sign))
    name = _UNWANTED.sub("-", plain).strip("-_")
    longest = min(_LONGEST_NAME, MAX_NAME_LENGTH - len("-999"))
    if len(name) > longest:
        whole, _, _ = name[: longest + 1].rpartition("-")
        name = (whole or name[:longest]).strip("-_")
    return name


def _task_of(job: CompositionJob) -> str:
    """Return the title in words; a title such as pick_vehicle is a name in disguise."""
    text = " ".join(job.title.split()).rstrip(".:")
    return text if " " in text else text.replace("_", " ").replace("-", " ")


def _describe_score(report: Mapping[str, Any]) -> str:
    """Return the score as the end of a sentence; nothing where the report knows none."""
    rows = {row["method"]: row for row in report.get("rows", [])}
    own = (rows.get("composed") or {}).get("held_out")
    if not own:
        return ""
    base = (rows.get("base") or {}).get("held_out") or {}
    if own.get("correct") is None:
        beside = f", the base alone {base['score']:.2f}" if base else ""
        return f": ROUGE-L {own['score']:.2f} on {own['n']} held-out rows{beside}"
    beside = f", the base alone {base['correct']}" if base.get("correct") is not None else ""
    return f": {own['correct']} of {own['n']} held-out rows right{beside}"


def _shorten(text: str, room: int) -> str:
    """Cut after a word, with a mark; too little room leaves nothing."""
    if len(text) <= room:
        return text
    if room < _LEAST_TASK:
        return ""
    whole, _, _ = text[: room - 1].rpartition(" ")
    return f"{(whole or text[: room - 1]).rstrip(' ,;:')}…"
