"""What an owner says of an adapter: card, summary, licence, task, tags, samples.

Checked in one place for the browser, the API, uploads and compositions. The files of a revision are
immutable and left to `publishing`; a card may change without a new revision.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from django.conf import settings
from django.db import transaction

from composer.examples import Example
from marketplace.accounts.models import User
from marketplace.catalogue.languages import find_language
from marketplace.catalogue.licences import (
    LicenceError,
    Licensed,
    find_conflicts,
    normalise_licence,
)
from marketplace.catalogue.models import Adapter, PromptFormat, Sample, Tag
from marketplace.catalogue.services.errors import Problems

MAX_TAGS = 20
MAX_SAMPLES = 10
MAX_SAMPLE_CHARACTERS = 8192
_TAG = re.compile(r"[a-z0-9][a-z0-9._+-]*\Z")
_MAX_TAG = 40
_LINES = {"summary": 200, "task": 60, "training_data": 300}


@dataclass(frozen=True)
class CardFields:
    """What the owner says of the adapter; None keeps what the adapter has."""

    summary: str | None = None
    card: str | None = None  # Markdown without front matter
    licence: str | None = None
    task: str | None = None
    language: str | None = None
    prompt_format: str | None = None
    training_data: str | None = None
    tags: Sequence[str] | None = None
    samples: Sequence[Example] | None = None
    visibility: str | None = None


def update_card(adapter: Adapter, card: CardFields, *, by: User) -> Adapter:
    """Change what is said of the adapter and return it; `by` has to be its owner.

    Raises:
        PublishError: with every problem by field.
    """
    problems = Problems()
    if adapter.owner_id != by.pk:
        problems.add("", "Only the owner of an adapter can change its card.")
    card = check_card(card, problems)
    problems.raise_if_any()
    with transaction.atomic():
        locked = Adapter.objects.select_for_update(no_key=True).get(pk=adapter.pk)
        _check_parents_allow(locked, card, problems)
        problems.raise_if_any()
        apply_card(locked, card)
    return locked


def check_card(card: CardFields, problems: Problems) -> CardFields:
    """Return the fields in their stored form, and add whatever is wrong with them to `problems`."""
    return CardFields(
        **{name: _check_line(card, name, limit, problems) for name, limit in _LINES.items()},
        card=_check_text(card.card, problems),
        licence=_check_licence(card.licence, problems),
        language=_check_language(card.language, problems),
        prompt_format=_check_choice(
            "prompt_format", card.prompt_format, PromptFormat.values, problems
        ),
        visibility=_check_choice(
            "visibility", card.visibility, Adapter.Visibility.values, problems
        ),
        tags=_check_tags(card.tags, problems),
        samples=_check_samples(card.samples, problems),
    )


def apply_card(adapter: Adapter, card: CardFields) -> None:
    """Store checked fields; the adapter's row is locked or new."""
    plain = [field.name for field in fields(card) if field.name not in {"tags", "samples"}]
    for name in plain:
        value = getattr(card, name)
        if value is not None:
            setattr(adapter, name, value)
    adapter.save()
    if card.tags is not None:
        _replace_tags(adapter, card.tags)
    if card.samples is not None:
        adapter.samples.all().delete()
        Sample.objects.bulk_create(
            Sample(adapter=adapter, position=position, input=row.input, output=row.output)
            for position, row in enumerate(card.samples)
        )


def read_licensed_parents(adapter: Adapter) -> list[Licensed]:
    """Return the parents of the current revision with the licences they have today."""
    if adapter.latest_id is None:
        return []
    edges = adapter.latest.parents.select_related("parent__adapter") if adapter.latest else []
    return [Licensed.of(edge.parent.adapter, composer_id=adapter.owner_id) for edge in edges]


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold the text: no NUL and no half of a surrogate pair."""
    return "\x00" not in text and not any("\ud800" <= sign <= "\udfff" for sign in text)


def _check_parents_allow(adapter: Adapter, card: CardFields, problems: Problems) -> None:
    """Keep a published composition within its parents' licences when licence or audience change."""
    visibility = card.visibility or adapter.visibility
    licence = adapter.licence if card.licence is None else card.licence
    unchanged = visibility == adapter.visibility and licence == adapter.licence
    if unchanged or visibility != Adapter.Visibility.PUBLIC:
        return
    parents = read_licensed_parents(adapter)
    if parents:
        problems.add("licence", *find_conflicts(parents, licence))


def _check_line(card: CardFields, name: str, limit: int, problems: Problems) -> str | None:
    value: str | None = getattr(card, name)
    if value is None:
        return None
    line = " ".join(value.split())
    if len(line) > limit:
        problems.add(name, f"At most {limit} characters; this has {len(line)}.")
    if not is_storable(line):
        problems.add(name, "This holds characters that cannot be stored. Type it anew.")
    return line


def _check_text(text: str | None, problems: Problems) -> str | None:
    if text is None:
        return None
    text = text.replace("\r\n", "\n")
    if not is_storable(text):
        problems.add("card", "The card holds characters that cannot be stored. Save it as UTF-8.")
        return text
    size = len(text.encode())
    if size > settings.MAX_CARD_BYTES:
        problems.add(
            "card",
            f"A card has at most {settings.MAX_CARD_BYTES // 1024} KiB; "
            f"this has {size // 1024 + 1}. Shorten it.",
        )
    return text


def _check_licence(licence: str | None, problems: Problems) -> str | None:
    if licence is None:
        return None
    try:
        return normalise_licence(licence)
    except LicenceError as error:
        problems.add("licence", str(error))
        return licence


def _check_language(language: str | None, problems: Problems) -> str | None:
    if not language:
        return language
    code = find_language(language)
    if code is None:
        problems.add(
            "language", f"We do not know the language “{language[:40]}”. Choose one of the list."
        )
    return code or language


def _check_choice(
    name: str, value: str | None, allowed: Iterable[str], problems: Problems
) -> str | None:
    if value is not None and value not in allowed:
        problems.add(name, f"“{value[:40]}” is none of: {', '.join(allowed)}.")
    return value


def _check_tags(tags: Sequence[str] | None, problems: Problems) -> list[str] | None:
    if tags is None:
        return None
    words = ("-".join(tag.lower().split()) for tag in tags)
    names = sorted({word for word in words if word})
    if len(names) > MAX_TAGS:
        problems.add("tags", f"At most {MAX_TAGS} tags; these are {len(names)}.")
    for name in names:
        if len(name) > _MAX_TAG or not _TAG.match(name):
            problems.add(
                "tags",
                f"“{name[:_MAX_TAG]}” cannot be a tag: a tag begins with a letter a to z or a "
                f"digit and holds only these, “.”, “_”, “+” and “-”, at most {_MAX_TAG}.",
            )
    return names


def _check_samples(
    samples: Sequence[Example] | None, problems: Problems
) -> Sequence[Example] | None:
    if samples is None:
        return None
    if len(samples) > MAX_SAMPLES:
        problems.add("samples", f"At most {MAX_SAMPLES} samples; these are {len(samples)}.")
    for number, sample in enumerate(samples, start=1):
        if not sample.input.strip() or not sample.output.strip():
            problems.add("samples", f"Sample {number} needs both an input and an output.")
        if max(len(sample.input), len(sample.output)) > MAX_SAMPLE_CHARACTERS:
            problems.add(
                "samples",
                f"Sample {number} is longer than {MAX_SAMPLE_CHARACTERS} characters.",
            )
        if not is_storable(sample.input + sample.output):
            problems.add("samples", f"Sample {number} holds characters that cannot be stored.")
    return samples


def _replace_tags(adapter: Adapter, names: Sequence[str]) -> None:
    # Sorted names and ON CONFLICT: two publishers that bring the same new tag do not collide.
    Tag.objects.bulk_create([Tag(name=name) for name in names], ignore_conflicts=True)
    adapter.tags.set(Tag.objects.filter(name__in=names))
