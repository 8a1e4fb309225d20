"""Whether a regular expression can take exponential time, found out without running it.

A backtracking matcher takes time exponential in the length of a text exactly when some state of the
pattern's automaton can be left and reached again in two ways by the same characters: then every
repetition of these characters doubles the ways that a failing match has to try (Weber and Seidl, On the
degree of ambiguity of finite automata, 1991). The automaton here is that of Glushkov: one state for each
place of the pattern where a character is matched, and an edge where one can follow the other, counted
when there are several reasons for it, as in ``(a+)+``.

What regular expressions have beyond automata is taken generously: a repetition of more than
``EXPANDED`` times counts as endless, a back reference as its group again, an atomic group and a possessive
quantifier as if they were neither, and what a lookaround looks at is judged by itself.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar, cast

from cinnabar_gateway.item_rules.quiet import quiet

EXPANDED = 3
"""Repetitions that are written out."""
MAX_STEPS = 500_000
"""Of the search in all patterns of an assignment; some 0.5 s."""
_STEPS_OF_A_NODE = 30
_SAMPLES = "\n\t 0a9Az_-!é中\u00a0\u0660\U0001f600"
"""Characters of every category, for patterns that name categories and no characters."""

# The parser of the standard library has no public name.
_parser = cast("Any", import_module("re._parser"))
_Node = tuple[Any, Any]
_T = TypeVar("_T", int, tuple[int, int])


_BRANCH = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\|", re.DOTALL)


class TooComplex(Exception):
    """The pattern is too large to be judged within bounds."""


@dataclass(slots=True)
class Budget:
    """Steps that may still be made, by all patterns that share it."""

    steps: int = MAX_STEPS

    def spend(self, steps: int) -> None:
        """Makes steps. TooComplex when there are no more."""
        self.steps -= steps
        if self.steps < 0:
            raise TooComplex


def is_exponential(pattern: str, *, case_sensitive: bool, budget: Budget) -> bool:
    """Whether some text makes a backtracking match of the whole pattern take exponential time.

    Raises re.error, RecursionError and OverflowError for what is no pattern, TooComplex.
    """
    flags = re.RegexFlag(0) if case_sensitive else re.IGNORECASE
    with quiet():
        parsed = _parser.parse(_with_branches_apart(pattern), flags)
    pending: list[tuple[Sequence[_Node], int]] = [(parsed.data, int(parsed.state.flags))]
    while pending:
        nodes, own_flags = pending.pop()
        automaton = _Automaton(budget)
        automaton.sequence(nodes, own_flags)
        if automaton.has_two_ways():
            return True
        pending += automaton.looked_at
    return False


def _with_branches_apart(pattern: str) -> str:
    """The pattern with something empty in its branches.

    Otherwise the parser makes a set of branches of one character each; other matchers try them in turn.
    """
    return _BRANCH.sub(lambda found: "|(?=)" if found[0] == "|" else found[0], pattern)


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the automaton. Ways are counted up to 2: more make no difference."""

    empty: int
    """Ways to match the empty text."""
    first: Mapping[int, int] = field(default_factory=dict[int, int])
    """Places that it begins at, each with the ways to get there."""
    last: Mapping[int, int] = field(default_factory=dict[int, int])
    """Places that it ends at, each with the ways to leave from there."""
    length: int | None = 0
    """Of all that it matches; None when it varies."""


_EMPTY = _Part(empty=1)


@dataclass(slots=True)
class _Automaton:
    budget: Budget
    leaves: list[tuple[str, Any, int]] = field(default_factory=list[tuple[str, Any, int]])
    follow: list[dict[int, int]] = field(default_factory=list[dict[int, int]])
    looked_at: list[tuple[Sequence[_Node], int]] = field(default_factory=list[tuple[Sequence[_Node], int]])
    groups: dict[int, tuple[Sequence[_Node], int]] = field(
        default_factory=dict[int, tuple[Sequence[_Node], int]]
    )

    def sequence(self, nodes: Iterable[_Node], flags: int) -> _Part:
        whole = _EMPTY
        for node in nodes:
            whole = self._then(whole, self._node(node, flags))
        return whole

    def _node(self, node: _Node, flags: int) -> _Part:
        self.budget.spend(_STEPS_OF_A_NODE)
        op, av = node
        match str(op):
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN" as kind:
                return self._leaf(kind, av, flags)
            case "BRANCH":
                return _either([self.sequence(one, flags) for one in av[1]])
            case "SUBPATTERN":
                group, added, removed, nodes = av
                own = flags & ~int(removed) | int(added)
                if group is not None:
                    self.groups[group] = (nodes, own)
                return self.sequence(nodes, own)
            case "ATOMIC_GROUP":
                return self.sequence(av, flags)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, nodes = av
                return self._repeat(least, int(most), nodes, flags)
            case "GROUPREF":
                nodes, own = self.groups.get(av, ((), flags))
                return self.sequence(nodes, own)
            case "GROUPREF_EXISTS":
                _, yes, no = av
                return _either([self.sequence(yes, flags), self.sequence(no or (), flags)])
            case "ASSERT" | "ASSERT_NOT":
                self.looked_at.append((av[1], flags))
                return _EMPTY
            case _:  # places in the text, which match nothing
                return _EMPTY

    def _leaf(self, kind: str, av: Any, flags: int) -> _Part:
        place = len(self.leaves)
        self.leaves.append((kind, av, flags))
        self.follow.append({})
        return _Part(empty=0, first={place: 1}, last={place: 1}, length=1)

    def _then(self, left: _Part, right: _Part) -> _Part:
        self._connect(left.last, right.first)
        return _Part(
            empty=min(2, left.empty * right.empty),
            first=_sum(left.first, right.first, left.empty),
            last=_sum(right.last, left.last, right.empty),
            length=None if left.length is None or right.length is None else left.length + right.length,
        )

    def _connect(self, last: Mapping[int, int], first: Mapping[int, int]) -> None:
        self.budget.spend(len(last) * len(first))
        for place, ways_out in last.items():
            following = self.follow[place]
            for other, ways_in in first.items():
                following[other] = min(2, following.get(other, 0) + ways_out * ways_in)

    def _repeat(self, least: int, most: int, nodes: Sequence[_Node], flags: int) -> _Part:
        body = self.sequence(nodes, flags)
        if most <= EXPANDED or (least == most and body.length):
            copies = [body] + [self.sequence(nodes, flags) for _ in range(1, min(most, EXPANDED))]
            if not most:
                return _EMPTY
            least = min(least, EXPANDED)
            whole = _EMPTY
            for copy in reversed(copies[least:]):  # each needs the one before: X(X(X)?)?
                whole = _optional(self._then(copy, whole))
            for copy in reversed(copies[:least]):
                whole = self._then(copy, whole)
            return whole
        self._connect(body.last, body.first)
        if body.empty and least > EXPANDED:
            self._connect(body.last, body.first)  # any of the repetitions may be the empty one
        return _Part(1 if body.empty or not least else 0, body.first, body.last, length=None)

    def has_two_ways(self) -> bool:
        """Whether a place can be reached again from itself in two ways by the same characters."""
        labels = _labels(self.leaves)
        groups = [group for group in _cycles(self.follow) if group]
        within = {place: number for number, group in enumerate(groups) for place in group}
        after: list[tuple[int, ...]] = []
        for place, following in enumerate(self.follow):
            own = within.get(place, -1)
            inside = [other for other in following if within.get(other, -2) == own]
            if any(following[other] > 1 and labels[other] for other in inside):
                return True
            after.append(tuple(inside))
        return _meets_again(after, labels, within, self.budget)


def _sum(own: Mapping[int, int], further: Mapping[int, int], ways: int) -> Mapping[int, int]:
    if not ways:
        return own
    return {**own, **{place: min(2, count * ways) for place, count in further.items()}}


def _either(parts: Sequence[_Part]) -> _Part:
    lengths = {part.length for part in parts}
    return _Part(
        empty=min(2, sum(part.empty for part in parts)),
        first={place: ways for part in parts for place, ways in part.first.items()},
        last={place: ways for part in parts for place, ways in part.last.items()},
        length=lengths.pop() if len(lengths) == 1 else None,
    )


def _optional(part: _Part) -> _Part:
    return _Part(empty=min(2, part.empty + 1), first=part.first, last=part.last, length=None)


def _meets_again(
    after: Sequence[tuple[int, ...]], labels: Sequence[int], places: Iterable[int], budget: Budget
) -> bool:
    """Whether, of two walks from one place by the same characters, both can part and come back to it."""
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], list[tuple[int, int]]] = {}

    def following(pair: tuple[int, int]) -> list[tuple[int, int]]:
        sets = after[pair[0]], after[pair[1]]
        found = known.get(sets)
        if found is None:
            budget.spend(len(sets[0]) * len(sets[1]))
            # (a, b) and (b, a) are the same two walks.
            found = list(
                {
                    (one, other) if one <= other else (other, one)
                    for one in sets[0]
                    for other in sets[1]
                    if labels[one] & labels[other]
                }
            )
            known[sets] = found
        budget.spend(len(found))
        return found

    starts = [(place, place) for place in places]
    return any(
        any(one == other for one, other in group) and any(one != other for one, other in group)
        for group in _components(starts, following)
    )


def _cycles(follow: Sequence[Mapping[int, int]]) -> Iterator[list[int]]:
    """Groups of places that can all reach each other, but for single ones that do not reach themselves."""
    for group in _components(range(len(follow)), lambda place: list(follow[place])):
        if len(group) > 1 or group[0] in follow[group[0]]:
            yield group


def _components(starts: Iterable[_T], following: Callable[[_T], Iterable[_T]]) -> Iterator[list[_T]]:
    """Strongly connected components of what can be reached from ``starts`` (Tarjan, without recursion)."""
    numbers: dict[_T, int] = {}
    lowest: dict[_T, int] = {}
    stack: list[_T] = []
    waiting: set[_T] = set()
    for start in starts:
        if start in numbers:
            continue
        walk: list[tuple[_T, Iterator[_T]]] = []

        def enter(node: _T, walk: list[tuple[_T, Iterator[_T]]] = walk) -> None:
            numbers[node] = lowest[node] = len(numbers)
            stack.append(node)
            waiting.add(node)
            walk.append((node, iter(following(node))))

        enter(start)
        while walk:
            node, rest = walk[-1]
            for other in rest:
                if other not in numbers:
                    enter(other)
                    break
                if other in waiting:
                    lowest[node] = min(lowest[node], numbers[other])
            else:
                walk.pop()
                if walk:
                    lowest[walk[-1][0]] = min(lowest[walk[-1][0]], lowest[node])
                if lowest[node] == numbers[node]:
                    group: list[_T] = []
                    while not group or group[-1] != node:
                        group.append(stack.pop())
                    waiting.difference_update(group)
                    yield group


def _labels(leaves: Sequence[tuple[str, Any, int]]) -> list[int]:
    """For each place the characters that match there, as bits of an alphabet that tells all places apart."""
    named = {ord(char) for char in _SAMPLES}
    for kind, av, _ in leaves:
        if kind in ("LITERAL", "NOT_LITERAL"):
            named.add(av)
        elif kind == "IN":
            for op, value in av:
                if str(op) == "LITERAL":
                    named.add(value)
                elif str(op) == "RANGE":
                    named.update((value[0], value[1]))
    cases = {ord(other) for code in named for other in _cases(code)}
    around = {code + step for code in named for step in (-1, 1)}
    alphabet = sorted(code for code in named | cases | around if 0 <= code <= 0x10FFFF)
    shared = _Alphabet(alphabet)
    return [shared.label(*leaf) for leaf in leaves]


def _cases(code: int) -> Iterator[str]:
    char = chr(code)
    for other in (char.lower(), char.upper()):
        if len(other) == 1:
            yield other


class _Alphabet:
    def __init__(self, codes: list[int]) -> None:
        self._codes = codes
        self._all = (1 << len(codes)) - 1
        same: dict[str, int] = {}
        for index, code in enumerate(codes):
            folded = chr(code).lower()
            same[folded] = same.get(folded, 0) | 1 << index
        self._same = [mask for mask in same.values() if mask.bit_count() > 1]
        self._categories: dict[str, int] = {}

    def label(self, kind: str, av: Any, flags: int) -> int:
        match kind:
            case "LITERAL":
                return self._folded(self._range(av, av), flags)
            case "NOT_LITERAL":
                return self._all & ~self._folded(self._range(av, av), flags)
            case "ANY":
                return self._all if flags & re.DOTALL else self._all & ~self._range(10, 10)
            case _:
                return self._set(av, flags)

    def _set(self, items: Sequence[_Node], flags: int) -> int:
        mask, negated = 0, False
        for op, value in items:
            match str(op):
                case "NEGATE":
                    negated = True
                case "LITERAL":
                    mask |= self._range(value, value)
                case "RANGE":
                    mask |= self._range(*value)
                case _:
                    mask |= self._category(str(value))
        mask = self._folded(mask, flags)
        return self._all & ~mask if negated else mask

    def _range(self, low: int, high: int) -> int:
        return (1 << bisect_right(self._codes, high)) - (1 << bisect_left(self._codes, low))

    def _folded(self, mask: int, flags: int) -> int:
        if flags & re.IGNORECASE:
            for same in self._same:
                if mask & same:
                    mask |= same
        return mask

    def _category(self, name: str) -> int:
        """CATEGORY_DIGIT, CATEGORY_NOT_DIGIT, and so on."""
        if name not in self._categories:
            kind = name.removeprefix("CATEGORY_").removeprefix("NOT_")
            mask = 0
            for index, code in enumerate(self._codes):
                if _is_of(chr(code), kind):
                    mask |= 1 << index
            self._categories[name] = self._all & ~mask if "NOT_" in name else mask
        return self._categories[name]


def _is_of(char: str, kind: str) -> bool:
    match kind:
        case "DIGIT":
            return char.isdecimal()
        case "SPACE":
            return char.isspace()
        case _:
            return char.isalnum() or char == "_"
