"""What the checks of all kinds share while one environment is resolved."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmctl.core.address import Address
from llmctl.core.kinds import BY_NAME, kind_of
from llmctl.core.resources import Resource, Spec
from llmctl.core.secrets import SecretRef
from llmctl.spec.files import Files
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
    resources: dict[Address, Resource] = field(default_factory=dict)
    secrets: list[tuple[Address, SecretRef]] = field(default_factory=list)
    trained_contexts: dict[str, int] = field(default_factory=dict)  # by model, in tokens

    def get(self, kind: str, name: str) -> Resource | None:
        """A resource that was resolved before, or ``None``: then what is wrong with it was reported."""
        return self.resources.get(Address(kind, name))

    def add(self, kind: str, name: str, spec: Spec, needs: tuple[Address, ...] = (), *, at: str = "") -> None:
        """Add a resolved resource; later findings about it point at its name, or at the value of its key ``at``."""
        address = Address(kind, name)
        location: Location = (BY_NAME[kind].section, name, *([at] if at else []))
        where = self.report.where(location, at_key=not at)
        revision = kind_of(kind).revision(spec)
        self.resources[address] = Resource(address, spec, revision, tuple(dict.fromkeys(needs)), where)
