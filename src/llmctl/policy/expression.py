"""What an expression names, read from its tokens.

CEL's ``||`` and ``&&`` absorb errors: ``resource.licence == "x" || true`` is true although no such field
exists, and so is one with a misspelt function. So names are judged when a rule is loaded. The engine tells
the variables but not the fields; those are read here. To be sure that no field is missed, ``resource`` may
stand only before ``.field`` or ``["field"]``, never bare, where it could be passed on under another name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

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
    """What the tokens tell: complaints, and the variables that macros bind."""

    complaints: list[Complaint] = field(default_factory=list)
    bound: set[str] = field(default_factory=set)


_END = Token("", "")


def tokens(source: str) -> Iterator[Token]:
    """The tokens of an expression that the engine could parse, without spaces and comments."""
    for match in _TOKEN.finditer(source):
        if match.lastgroup and match.lastgroup != "skip":
            yield Token(match.lastgroup, match.group())


def names(source: str, roots: Mapping[str, tuple[str, ...]], nested: Mapping[str, tuple[str, ...]]) -> Names:
    """Find every field of ``roots`` and every function that an expression names.

    ``roots`` are variables with their fields, ``nested`` the fields of objects inside ``resource``.
    """
    found = Names()
    line = [_END, *tokens(source), *[_END] * 4]
    for at in range(1, len(line) - 4):
        token, follows = line[at], line[at + 1]
        if token.kind != "name" or token.text in _WORDS:
            continue
        is_member = line[at - 1].text == "." and _ends_operand(line[at - 2])
        if follows.text == "(":
            _call(found, token.text, is_member, line[at + 2])
        elif not is_member and token.text in roots:
            _path(found, line[at:], roots, nested)
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


def _ends_operand(token: Token) -> bool:
    return token.text in (")", "]", "}") or token.kind in ("text", "number") or _is_value(token)


def _is_value(token: Token) -> bool:
    return token.kind == "name" and token.text != "in"


def _call(found: Names, name: str, is_member: bool, argument: Token) -> None:
    if is_member and name in MACROS:
        found.bound.add(argument.text)
    if name not in (METHODS if is_member else FUNCTIONS):
        what = "method" if is_member else "function"
        options = sorted(METHODS if is_member else FUNCTIONS)
        found.complaints.append(Complaint(f"unknown {what} {name}()", closest(name, options)))


def _path(
    found: Names, line: list[Token], roots: Mapping[str, tuple[str, ...]], nested: Mapping[str, tuple[str, ...]]
) -> None:
    root = line[0].text
    first, rest = _member(line[1:])
    if not first:
        found.complaints.append(
            Complaint(f"{root} stands alone", f"Name the field that the rule is about: {root}.{roots[root][0]}.")
        )
        return
    if first not in roots[root]:
        found.complaints.append(Complaint(f"{root} has no field {first}", closest(first, list(roots[root]))))
        return
    if root != "resource" or first not in nested:
        return
    second, after = _member(rest)
    if second and second not in nested[first] and after[0].text != "(":
        hint = closest(second, list(nested[first]))
        found.complaints.append(Complaint(f"{root}.{first} has no field {second}", hint))


def _member(line: list[Token]) -> tuple[str, list[Token]]:
    """The name in ``.name`` or ``["name"]`` and what follows; "" when neither is there."""
    padded = [*line, _END, _END, _END, _END]
    if padded[0].text == "." and padded[1].kind == "name":
        return padded[1].text, padded[2:]
    literal = padded[1].text[1:-1]
    if padded[0].text == "[" and padded[1].kind == "text" and padded[2].text == "]" and re.fullmatch(r"\w+", literal):
        return literal, padded[3:]
    return "", padded
