"""What the checks of all kinds share while one environment is resolved."""

from __future__ import annotations

from collections.abc import Mapping as ReadOnly
from dataclasses import dataclass, field

from llmctl.core.address import Address
from llmctl.core.kinds import kind_of
from llmctl.core.resources import Resource, Spec
from llmctl.core.secrets import SecretRef
from llmctl.spec.files import Files
from llmctl.spec.models import ResourceShape
from llmctl.spec.nodes import Location
from llmctl.spec.report import Report
from llmctl.spec.view import View


@dataclass
class Build:
    """The environment in the making. A resource that cannot be resolved is reported and never added."""

    view: View
    report: Report
    files: Files
    target: str
    aliases: ReadOnly[str, list[str]] = field(default_factory=dict)  # by route: the names that it had, sorted
    resources: dict[Address, Resource] = field(default_factory=dict)
    secrets: list[tuple[Address, SecretRef]] = field(default_factory=list)
    trained_contexts: dict[str, int] = field(default_factory=dict)  # by model, in tokens

    def get(self, kind: str, name: str) -> Resource | None:
        """A resource that was resolved before, or ``None``: then what is wrong with it was reported."""
        return self.resources.get(Address(kind, name))

    def add(
        self, kind: str, name: str, shape: ResourceShape, spec: Spec, needs: tuple[Address, ...] = (), *, at: str = ""
    ) -> None:
        """Add a resolved resource; later findings about it point at its name, or at the value of its key ``at``."""
        address = Address(kind, name)
        of = kind_of(kind)
        location: Location = (of.section, name, *([at] if at else []))
        where = self.report.where(location, at_key=not at)
        spec = {**spec, "protect": shape.protect}
        self.resources[address] = Resource(address, spec, of.revision(spec), tuple(dict.fromkeys(needs)), where)
