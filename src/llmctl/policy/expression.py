"""What an expression names, read from its tokens.

CEL's ``||`` and ``&&`` absorb errors: ``resource.licence == "x" || true`` is true although no such field
exists, and so is one with a misspelt function. So names are judged when a rule is loaded. The engine tells
the variables but not the fields; those are read here. To be sure that no field is missed, ``resource`` may
stand only before ``.field`` or ``["field"]``, never bare, where it could be passed on under another name. What
a macro binds over a list of objects (``plan.changes.all(c, c.kind == "prompt")``) is followed too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from llmctl.policy.fields import Fields, Shape

FUNCTIONS = frozenset(
    {"size", "int", "uint", "double", "string", "bytes", "type", "dyn", "duration", "timestamp", "has"}
)
MACROS = frozenset({"all", "exists", "exists_one", "map", "filter"})
METHODS = MACROS | {"size", "startsWith", "endsWith", "contains", "matches"}
METHODS |= {f"get{part}" for part in ("FullYear", "Month", "Date", "DayOfMonth", "DayOfWeek", "DayOfYear")}
METHODS |= {f"get{part}" for part in ("Hours", "Minutes", "Seconds", "Milliseconds")}
_WORDS = frozenset({"true", "false", "null", "in"})
_TYPES = frozenset({"int", "uint", "double", "string", "bytes", "bool", "list", "map", "type", "null_type"})

_TOKEN = re.compile(
    r"""
      (?P<skip>\s+|//[^\n]*)
    | (?P<text>
        (?:[bB]?[rR]|[rR][bB]) (?: \"{3}.*?\"{3} | '{3}.*?'{3} | \"[^\"\n]*\" | '[^'\n]*' )
      | [bB]? (?: \"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3}
                | \"(?:\\.|[^\"\\\n])*\" | '(?:\\.|[^'\\\n])*' ) )
    | (?P<number> 0[xX][0-9a-fA-F]+[uU]? | (?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?[uU]? )
    | (?P<name>[A-Za-z_]\w*)
    | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its kind (text, number, name, mark, or "" at the end) and how it is written."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Complaint:
    """A name that is not there, or stands where it cannot be followed; ``hint`` says what is there."""

    summary: str
    hint: str


@dataclass(slots=True)
class Names:
    """What the tokens tell: complaints, the paths that are read, and the variables that macros bind.

    ``bound`` counts how often a variable is bound, ``items`` has the shape of the item each time that it is known.
    """

    complaints: list[Complaint] = field(default_factory=list)
    paths: dict[tuple[str, ...], None] = field(default_factory=dict)  # ("resource", "lineage", "base"), in order
    bound: Counter[str] = field(default_factory=Counter)
    items: dict[str, list[Shape]] = field(default_factory=dict)


_END = Token("", "")


def tokens(source: str) -> Iterator[Token]:
    """The tokens of an expression that the engine could parse, without spaces and comments."""
    for match in _TOKEN.finditer(source):
        if match.lastgroup and match.lastgroup != "skip":
            yield Token(match.lastgroup, match.group())


def names(source: str, roots: Mapping[str, Fields]) -> Names:
    """Find every field of ``roots``, which are variables with their fields, and every function that is named."""
    found = Names()
    line = [_END, *tokens(source), *[_END] * 4]
    places = [n for n in range(1, len(line) - 4) if line[n].kind == "name" and line[n].text not in _WORDS]
    for at in places:
        token, is_member = line[at], _is_member(line, at)
        if line[at + 1].text == "(":
            _call(found, token.text, is_member, line[at + 2])
        elif not is_member and token.text in roots:
            _root(found, line[at:], roots[token.text])
    for at in places:
        name = line[at].text
        shapes = found.items.get(name, [])
        # A variable that macros bind to different things is left to the evaluation.
        told = shapes and all(s == shapes[0] for s in shapes) and len(shapes) == found.bound[name]
        if told and not _is_member(line, at):
            _follow(found, (name,), shapes[0], line[at + 1 :])
    return found


def unknown_variables(variables: list[str], known: set[str]) -> list[Complaint]:
    """Complaints about variables that nobody binds."""
    return [
        Complaint(f"unknown variable {name}", closest(name, sorted(known)))
        for name in variables
        if name not in known and name not in _TYPES
    ]


def closest(name: str, options: list[str]) -> str:
    """A hint: the likeliest option if there is one, and all of them."""
    near = get_close_matches(name, options, n=1, cutoff=0.6)
    there = f"There are: {', '.join(options)}."
    return f"Did you mean {near[0]}? {there}" if near else there


def _is_member(line: list[Token], at: int) -> bool:
    return line[at - 1].text == "." and _ends_operand(line[at - 2])


def _ends_operand(token: Token) -> bool:
    return token.text in (")", "]", "}") or token.kind in ("text", "number") or _is_value(token)


def _is_value(token: Token) -> bool:
    return token.kind == "name" and token.text != "in"


def _call(found: Names, name: str, is_member: bool, argument: Token) -> None:
    if is_member and name in MACROS:
        found.bound[argument.text] += 1
    if name not in (METHODS if is_member else FUNCTIONS):
        what = "method" if is_member else "function"
        options = sorted(METHODS if is_member else FUNCTIONS)
        found.complaints.append(Complaint(f"unknown {what} {name}()", closest(name, options)))


def _root(found: Names, line: list[Token], shape: Fields) -> None:
    root = line[0].text
    if not _member(line[1:])[0]:
        hint = f"Name the field that the rule is about: {root}.{next(iter(shape))}."
        found.complaints.append(Complaint(f"{root} stands alone", hint))
        return
    found.paths.setdefault(_follow(found, (root,), shape, line[1:]))


def _follow(found: Names, path: tuple[str, ...], shape: Shape, line: list[Token]) -> tuple[str, ...]:
    """Follow ``.field`` and ``[index]`` from a value of that shape as far as they go; the names on the way."""
    while True:
        if isinstance(shape, list):
            shape, line = _item(found, shape, line)
        name, rest = _member(line)
        if not name or rest[0].text == "(" or isinstance(shape, list):
            return path
        if isinstance(shape, dict) and name not in shape:
            summary = f"{'.'.join(path)} has no field {name}"
            found.complaints.append(Complaint(summary, closest(name, list(shape))))
            return path
        shape = shape[name] if isinstance(shape, dict) else "map"
        path, line = (*path, name), rest


def _item(found: Names, items: list[Shape], line: list[Token]) -> tuple[Shape, list[Token]]:
    """What an index after a list leads to, and the rest; the list itself when none follows.

    On the way the variables of macros over the list are noted; ``filter`` gives such a list again.
    """
    while line[0].text == "." and line[1].text in MACROS and line[2].text == "(":
        found.items.setdefault(line[3].text, []).append(items[0])
        if line[1].text != "filter":
            return items, []
        line = _after_bracket(line[2:])
    return (items[0], _after_bracket(line)) if line[0].text == "[" else (items, line)


def _after_bracket(line: list[Token]) -> list[Token]:
    """What follows the bracket that is opened by the first token."""
    depth = 0
    for at, token in enumerate(line):
        depth += (token.text in ("(", "[", "{")) - (token.text in (")", "]", "}")) if token.kind == "mark" else 0
        if depth == 0:
            return [*line[at + 1 :], *[_END] * 4]
    return [_END] * 4


def _member(line: list[Token]) -> tuple[str, list[Token]]:
    """The name in ``.name`` or ``["name"]`` and what follows; "" when neither is there."""
    padded = [*line, _END, _END, _END, _END]
    if padded[0].text == "." and padded[1].kind == "name":
        return padded[1].text, padded[2:]
    literal = padded[1].text[1:-1]
    if padded[0].text == "[" and padded[1].kind == "text" and padded[2].text == "]" and re.fullmatch(r"\w+", literal):
        return literal, padded[3:]
    return "", padded
