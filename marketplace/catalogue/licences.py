"""Licences by their SPDX ids: what an expression means, and what a composition may be under.

The rules are few and err on the side of asking: they look at non-commercial, no-derivatives and
share-alike terms and at terms that must be passed on. They are no legal advice, and pages say so.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marketplace.catalogue.models import Adapter

MAX_LENGTH = 200
MAX_ALTERNATIVES = 64


@dataclass(frozen=True)
class Licence:
    """One licence and the terms that matter to whoever builds on it."""

    id: str
    name: str
    noncommercial: bool = False
    no_derivatives: bool = False
    share_alike: str = ""  # the family within which a derived work must stay
    passed_on: bool = False  # a derived work must carry these terms as well
    waived: bool = False  # asks for nothing, so it need not be repeated


def _table(*rows: Licence) -> dict[str, Licence]:
    return {row.id: row for row in rows}


LICENCES = _table(
    Licence("Apache-2.0", "Apache License 2.0"),
    Licence("MIT", "MIT License"),
    Licence("BSD-2-Clause", "BSD 2-Clause License"),
    Licence("BSD-3-Clause", "BSD 3-Clause License"),
    Licence("0BSD", "BSD Zero Clause License", waived=True),
    Licence("ISC", "ISC License"),
    Licence("Zlib", "zlib License"),
    Licence("BSL-1.0", "Boost Software License 1.0"),
    Licence("PostgreSQL", "PostgreSQL License"),
    Licence("Artistic-2.0", "Artistic License 2.0"),
    Licence("AFL-3.0", "Academic Free License 3.0"),
    Licence("ECL-2.0", "Educational Community License 2.0"),
    Licence("NCSA", "University of Illinois/NCSA License"),
    Licence("WTFPL", "Do What The F*ck You Want To Public License", waived=True),
    Licence("Unlicense", "The Unlicense", waived=True),
    Licence("CC0-1.0", "Creative Commons Zero 1.0", waived=True),
    Licence("PDDL-1.0", "Public Domain Dedication and License 1.0", waived=True),
    Licence("CDLA-Permissive-1.0", "Community Data License Permissive 1.0"),
    Licence("CDLA-Permissive-2.0", "Community Data License Permissive 2.0"),
    Licence("CDLA-Sharing-1.0", "Community Data License Sharing 1.0", share_alike="cdla-sharing"),
    Licence("ODC-By-1.0", "Open Data Commons Attribution 1.0"),
    Licence("ODbL-1.0", "Open Database License 1.0", share_alike="odbl"),
    Licence("CC-BY-2.0", "Creative Commons Attribution 2.0"),
    Licence("CC-BY-2.5", "Creative Commons Attribution 2.5"),
    Licence("CC-BY-3.0", "Creative Commons Attribution 3.0"),
    Licence("CC-BY-4.0", "Creative Commons Attribution 4.0"),
    Licence("CC-BY-SA-3.0", "Creative Commons Attribution Share Alike 3.0", share_alike="cc-by-sa"),
    Licence("CC-BY-SA-4.0", "Creative Commons Attribution Share Alike 4.0", share_alike="cc-by-sa"),
    Licence("CC-BY-NC-2.0", "Creative Commons Attribution Non Commercial 2.0", noncommercial=True),
    Licence("CC-BY-NC-3.0", "Creative Commons Attribution Non Commercial 3.0", noncommercial=True),
    Licence("CC-BY-NC-4.0", "Creative Commons Attribution Non Commercial 4.0", noncommercial=True),
    Licence(
        "CC-BY-NC-SA-3.0",
        "Creative Commons Attribution Non Commercial Share Alike 3.0",
        noncommercial=True,
        share_alike="cc-by-nc-sa",
    ),
    Licence(
        "CC-BY-NC-SA-4.0",
        "Creative Commons Attribution Non Commercial Share Alike 4.0",
        noncommercial=True,
        share_alike="cc-by-nc-sa",
    ),
    Licence("CC-BY-ND-4.0", "Creative Commons Attribution No Derivatives 4.0", no_derivatives=True),
    Licence(
        "CC-BY-NC-ND-4.0",
        "Creative Commons Attribution Non Commercial No Derivatives 4.0",
        noncommercial=True,
        no_derivatives=True,
    ),
    Licence("MPL-2.0", "Mozilla Public License 2.0", passed_on=True),
    Licence("EPL-2.0", "Eclipse Public License 2.0", passed_on=True),
    Licence("EUPL-1.2", "European Union Public License 1.2", share_alike="eupl"),
    Licence("OSL-3.0", "Open Software License 3.0", share_alike="osl"),
    Licence("LGPL-2.1-only", "GNU Lesser General Public License 2.1 only", passed_on=True),
    Licence("LGPL-2.1-or-later", "GNU Lesser General Public License 2.1 or later", passed_on=True),
    Licence("LGPL-3.0-only", "GNU Lesser General Public License 3.0 only", passed_on=True),
    Licence("LGPL-3.0-or-later", "GNU Lesser General Public License 3.0 or later", passed_on=True),
    Licence("GPL-2.0-only", "GNU General Public License 2.0 only", share_alike="gpl-2"),
    Licence("GPL-2.0-or-later", "GNU General Public License 2.0 or later", share_alike="gpl"),
    Licence("GPL-3.0-only", "GNU General Public License 3.0 only", share_alike="gpl"),
    Licence("GPL-3.0-or-later", "GNU General Public License 3.0 or later", share_alike="gpl"),
    Licence("AGPL-3.0-only", "GNU Affero General Public License 3.0 only", share_alike="gpl"),
    Licence(
        "AGPL-3.0-or-later", "GNU Affero General Public License 3.0 or later", share_alike="gpl"
    ),
    Licence("GFDL-1.3-or-later", "GNU Free Documentation License 1.3", share_alike="gfdl"),
    Licence("OFL-1.1", "SIL Open Font License 1.1", passed_on=True),
    Licence("LicenseRef-OpenRAIL", "OpenRAIL", passed_on=True),
    Licence("LicenseRef-BigScience-OpenRAIL-M", "BigScience OpenRAIL-M", passed_on=True),
    Licence("LicenseRef-BigScience-BLOOM-RAIL-1.0", "BigScience BLOOM RAIL 1.0", passed_on=True),
    Licence("LicenseRef-CreativeML-OpenRAIL-M", "CreativeML OpenRAIL-M", passed_on=True),
    Licence("LicenseRef-BigCode-OpenRAIL-M", "BigCode OpenRAIL-M", passed_on=True),
    Licence("LicenseRef-Llama-2", "Llama 2 Community License", passed_on=True),
    Licence("LicenseRef-Llama-3", "Llama 3 Community License", passed_on=True),
    Licence("LicenseRef-Llama-3.1", "Llama 3.1 Community License", passed_on=True),
    Licence("LicenseRef-Llama-3.2", "Llama 3.2 Community License", passed_on=True),
    Licence("LicenseRef-Llama-3.3", "Llama 3.3 Community License", passed_on=True),
    Licence("LicenseRef-Gemma", "Gemma Terms of Use", passed_on=True),
    Licence("LicenseRef-Other", "another licence, named in the card", passed_on=True),
)
# What cards on the public hub call them.
HUB_NAMES = {
    "openrail": "LicenseRef-OpenRAIL",
    "bigscience-openrail-m": "LicenseRef-BigScience-OpenRAIL-M",
    "bigscience-bloom-rail-1.0": "LicenseRef-BigScience-BLOOM-RAIL-1.0",
    "creativeml-openrail-m": "LicenseRef-CreativeML-OpenRAIL-M",
    "bigcode-openrail-m": "LicenseRef-BigCode-OpenRAIL-M",
    "llama2": "LicenseRef-Llama-2",
    "llama3": "LicenseRef-Llama-3",
    "llama3.1": "LicenseRef-Llama-3.1",
    "llama3.2": "LicenseRef-Llama-3.2",
    "llama3.3": "LicenseRef-Llama-3.3",
    "gemma": "LicenseRef-Gemma",
    "other": "LicenseRef-Other",
    "gpl": "GPL-3.0-or-later",
    "gpl-2.0": "GPL-2.0-only",
    "gpl-3.0": "GPL-3.0-only",
    "lgpl": "LGPL-3.0-or-later",
    "lgpl-2.1": "LGPL-2.1-only",
    "lgpl-3.0": "LGPL-3.0-only",
    "agpl-3.0": "AGPL-3.0-only",
    "gfdl": "GFDL-1.3-or-later",
    "bsd": "BSD-3-Clause",
    "odc-by": "ODC-By-1.0",
    "pddl": "PDDL-1.0",
    "odbl": "ODbL-1.0",
    "cc": "CC0-1.0",
}
_BY_FOLDED_NAME = {name.lower(): name for name in LICENCES} | HUB_NAMES
_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9][A-Za-z0-9.+:-]*)")
_CUSTOM = re.compile(r"LicenseRef-[A-Za-z0-9.-]+\Z")
# Apache's patent clause is a further restriction that version 2 of the GPL does not allow.
_CLASHES = ((frozenset({"Apache-2.0", "GPL-2.0-only"}), "Apache-2.0 and GPL-2.0-only"),)


class LicenceError(ValueError):
    """An expression that is none, with a sentence that says how to mend it."""


@dataclass(frozen=True)
class Licensed:
    """A parent of a composition, and the licence expression that its owner gave it."""

    name: str
    licence: str
    is_own: bool = False  # the composer owns it and may do as they like

    @classmethod
    def of(cls, adapter: Adapter, *, composer_id: int) -> Licensed:
        """Return what an adapter's licence means to the user who composes with it."""
        return cls(adapter.full_name, adapter.licence, is_own=adapter.owner_id == composer_id)


# An expression as alternatives (OR) of sets of licences that hold together (AND).
Alternatives = tuple[frozenset[str], ...]


def normalise_licence(text: str) -> str:
    """Return the expression with the ids as SPDX spells them; empty stays empty.

    Raises:
        LicenceError: for an unknown id or an expression that cannot be read.
    """
    if not text.strip():
        return ""
    if len(text) > MAX_LENGTH:
        message = f"A licence expression has at most {MAX_LENGTH} characters."
        raise LicenceError(message)
    tokens = _read_tokens(text)
    _Parser(tokens).parse()
    return " ".join(tokens).replace("( ", "(").replace(" )", ")")


def read_alternatives(expression: str) -> Alternatives:
    """Return what the expression offers: any one of the sets may be chosen."""
    return _Parser(_read_tokens(expression)).parse()


def derive_licence(parents: Iterable[Licensed]) -> str:
    """Return the licence that a composition of these parents has unless its owner narrows it.

    Others' terms bind. The composer's own licences join them as far as they go together, since the
    composer may publish their own work under other terms as well.
    """
    licensed = [parent for parent in parents if parent.licence]
    chosen, _ = _choose(tuple(parent for parent in licensed if not parent.is_own))
    for parent in licensed:
        if parent.is_own:
            chosen |= _terms_beside(chosen, parent)
    bound = sorted(name for name in chosen if not _licence(name).waived)
    return " AND ".join(bound or sorted(chosen)[:1])


def find_conflicts(parents: Sequence[Licensed], chosen: str = "") -> list[str]:
    """Return the reasons why a composition of these parents may not be published as `chosen`.

    An empty `chosen` asks for any licence at all. The user's own parents never stand in the way.
    """
    others = [parent for parent in parents if not parent.is_own]
    problems = [
        f"{parent.name} has no licence, so nobody but its owner may build on it. "
        "Ask its owner to choose one, or leave it out."
        for parent in others
        if not parent.licence
    ]
    licensed = tuple(parent for parent in others if parent.licence)
    terms, conflicts = _choose(licensed)
    problems += conflicts
    if not problems and chosen:
        problems += _missing_terms(terms, chosen)
    return problems


def _choose(parents: tuple[Licensed, ...]) -> tuple[frozenset[str], list[str]]:
    """Pick the alternatives with the fewest conflicts: the licences that then hold together."""
    options = [
        [(parent, terms) for terms in read_alternatives(parent.licence)] for parent in parents
    ]
    best: tuple[frozenset[str], list[str]] | None = None
    for choice in itertools.islice(itertools.product(*options), MAX_ALTERNATIVES):
        conflicts = _conflicts_of(choice)
        if best is None or len(conflicts) < len(best[1]):
            together = frozenset(itertools.chain.from_iterable(terms for _, terms in choice))
            best = (together, conflicts)
        if not conflicts:
            break
    return best or (frozenset(), [])


def _terms_beside(chosen: frozenset[str], own: Licensed) -> frozenset[str]:
    """Return the first of an own parent's alternatives that goes with the terms chosen so far."""
    settled = [(Licensed(name, name), frozenset({name})) for name in chosen]
    for terms in read_alternatives(own.licence):
        if not _conflicts_of([*settled, (own, terms)]):
            return terms
    return frozenset()


def _conflicts_of(choice: Sequence[tuple[Licensed, frozenset[str]]]) -> list[str]:
    conflicts = []
    shared: dict[str, tuple[str, str]] = {}  # family -> (parent, licence)
    noncommercial: list[tuple[str, str]] = []
    for parent, terms in choice:
        for licence in map(_licence, sorted(terms)):
            if licence.no_derivatives:
                conflicts.append(
                    f"{parent.name} is under {licence.id}, which allows no derived works to be "
                    "published. Leave it out, or keep the result to yourself."
                )
            if licence.share_alike:
                shared.setdefault(licence.share_alike, (parent.name, licence.id))
            if licence.noncommercial:
                noncommercial.append((parent.name, licence.id))
    conflicts += _share_alike_conflicts(shared, noncommercial)
    together = frozenset(itertools.chain.from_iterable(terms for _, terms in choice))
    conflicts += [
        f"{names} cannot be combined in one work. Leave out one of the two."
        for pair, names in _CLASHES
        if pair <= together
    ]
    return conflicts


def _share_alike_conflicts(
    shared: dict[str, tuple[str, str]], noncommercial: list[tuple[str, str]]
) -> list[str]:
    conflicts = []
    families = list(shared.values())
    for parent, licence in families[1:]:
        first, its = families[0]
        conflicts.append(
            f"{first} ({its}) and {parent} ({licence}) each want the result under their own "
            "licence. Leave out one of the two."
        )
    for family, (parent, licence) in shared.items():
        clash = next((item for item in noncommercial if family != "cc-by-nc-sa"), None)
        if clash:
            conflicts.append(
                f"{clash[0]} ({clash[1]}) forbids commercial use, while {parent} ({licence}) "
                "wants it allowed in everything built on it. Leave out one of the two."
            )
    return conflicts


def _missing_terms(terms: frozenset[str], chosen: str) -> list[str]:
    """Return what the parents ask for and the chosen licence would give away."""
    problems = []
    offered = read_alternatives(chosen)
    for name in sorted(terms):
        licence = _licence(name)
        if any(not _keeps(licence, option) for option in offered):
            problems.append(
                f"A parent is under {licence.id}, and the result has to keep its terms: "
                f"choose {licence.id}, alone or with others joined by AND."
            )
    return problems


def _keeps(licence: Licence, option: frozenset[str]) -> bool:
    given = [_licence(name) for name in option]
    if licence.share_alike:
        return any(other.share_alike == licence.share_alike for other in given)
    if licence.passed_on:
        return licence.id in option
    if licence.noncommercial:
        return any(other.noncommercial for other in given)
    return True


def _licence(name: str) -> Licence:
    """A licence of the list; one of the user's own is taken to ask for its terms to be kept."""
    return LICENCES.get(name) or Licence(name, name, passed_on=True)


def _read_tokens(text: str) -> list[str]:
    tokens = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            message = f"“{text[position:].strip()[:40]}” cannot stand in a licence expression."
            raise LicenceError(message)
        tokens.append(_read_name(match[1]))
        position = match.end()
    return tokens


def _read_name(token: str) -> str:
    if token in {"(", ")"}:
        return token
    if token.upper() in {"AND", "OR"}:
        return token.upper()
    known = _BY_FOLDED_NAME.get(token.lower())
    if known:
        return known
    if _CUSTOM.match(token):
        return token
    message = (
        f"“{token}” is no licence we know. Choose one of the list, such as Apache-2.0, "
        "or name your own as LicenseRef-Its-Name and put its text into the card."
    )
    raise LicenceError(message)


class _Parser:
    """Recursive descent: an expression is terms joined by OR, a term is factors joined by AND."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [*tokens, ""]
        self._position = 0

    def parse(self) -> Alternatives:
        found = self._expression()
        if self._next():
            message = f"The licence expression cannot go on with “{self._next()}”. Use AND or OR."
            raise LicenceError(message)
        return found

    def _next(self) -> str:
        return self._tokens[self._position]

    def _take(self) -> str:
        token = self._next()
        self._position += 1
        return token

    def _expression(self) -> Alternatives:
        found = self._term()
        while self._next() == "OR":
            self._take()
            found += self._term()
        return found

    def _term(self) -> Alternatives:
        found = self._factor()
        while self._next() == "AND":
            self._take()
            right = self._factor()
            pairs = itertools.product(found, right)
            found = tuple(a | b for a, b in itertools.islice(pairs, MAX_ALTERNATIVES))
        return found

    def _factor(self) -> Alternatives:
        if self._next() in {"", "AND", "OR", ")"}:
            message = "The licence expression lacks a licence between its words. Write A AND B."
            raise LicenceError(message)
        token = self._take()
        if token != "(":  # noqa: S105 - a parenthesis, no password
            return (frozenset({token}),)
        found = self._expression()
        if self._take() != ")":
            message = "The licence expression lacks a closing parenthesis."
            raise LicenceError(message)
        return found
