"""Order: which nodes may come when, and what depends on what.

A graph is a mapping from each node to the nodes it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

N = TypeVar("N")

__all__ = ["Cycle", "dependents", "in_order", "users_of"]


class Cycle(ValueError):
    """The graph has a cycle; ``nodes`` lists it, first and last equal."""

    def __init__(self, nodes: list[object]) -> None:
        super().__init__(" → ".join(map(str, nodes)))
        self.nodes = nodes


def in_order(needs: Mapping[N, Iterable[N]]) -> list[N]:
    """All nodes, each after what it needs, otherwise in the order given. Raises ``Cycle``."""
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise Cycle(list(error.args[1])) from None


def users_of(needs: Mapping[N, Iterable[N]]) -> dict[N, list[N]]:
    """The graph turned round: for each node those that need it directly."""
    users: dict[N, list[N]] = {}
    for node, wanted in needs.items():
        for need in wanted:
            users.setdefault(need, []).append(node)
    return users


def dependents(users: Mapping[N, Iterable[N]], of: Iterable[N]) -> set[N]:
    """Every node that needs one of ``of``, directly or through others, in a graph turned round by ``users_of``."""
    found: set[N] = set()
    waiting = list(of)
    while waiting:
        for user in users.get(waiting.pop(), ()):
            if user not in found:
                found.add(user)
                waiting.append(user)
    return found
