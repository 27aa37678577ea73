"""The policies and gates of another revision of the project, so that a change cannot wave itself through unseen."""

from __future__ import annotations

import os
from collections.abc import Mapping as ReadOnly
from dataclasses import dataclass
from posixpath import normpath
from typing import get_args

from llmctl.core.address import NAME, Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.core.kinds import BY_NAME, kind_of
from llmctl.core.plugins import installed
from llmctl.core.resources import Resource, Spec
from llmctl.spec.files import MAX_TEXT_BYTES, FileRefused, refuse_outside, text_of, too_large
from llmctl.spec.includes import read_tree
from llmctl.spec.interpolation import Values, resolve_tree
from llmctl.spec.models import PolicyScope
from llmctl.spec.nodes import Mapping, Node, Scalar
from llmctl.spec.overlay import overlaid
from llmctl.spec.project import Document
from llmctl.spec.report import Report
from llmctl.spec.rules import gate_spec, policy_spec
from llmctl.spec.tracked import matches
from llmctl.spec.view import View, resources_of
from llmctl.spec.yaml_reader import decode

_RULES = ("gates", "policies")


def base_rules(
    document: Document, files: ReadOnly[str, bytes], environment: str, *, base: str
) -> ReadOnly[Address, Resource]:
    """The policies and gates that one environment had in another revision of the project.

    ``files`` maps paths relative to ``document.root`` to what they held there (it may read them on demand; the
    main file, those that it includes and texts that rules refer to are asked for), ``base`` names that revision
    in messages. A gate's spec lacks ``dataset_revision``, ``dataset_digest`` and ``dataset_format``, and so its
    revision compares only with others from here. Other sections are not looked at, and policies for a kind that
    nobody has are left out: their plug-in may no longer be installed. Nothing is returned when the project's file
    was not there, and an environment that was not declared there has the rules without overrides.

    Raises ``InvalidInput`` when the file as of that revision is not valid.
    """
    name = document.path.name
    if name not in files:
        return {}
    folder = _Snapshot(files, base)
    try:
        tree = read_tree(decode(files[name], folder.shown(name)), name, folder, _RULES)
        report = Report(_rules_of(tree.root, environment))
        for finding in tree.findings:
            report.add(finding)
        resolve_tree(report, Values(os.environ, folder.text, sealed=document.sealed), strict=False)
        view = View()
        resources_of(report, view, _RULES, {})
        found = _resolved(report, view, folder)
        report.raise_errors()
    except InvalidInput as error:
        summary = f"{name} as of {base} is not valid, so its policies and gates cannot be compared"
        hint = "Correct the file there, or name another revision."
        raise InvalidInput([Diagnostic(summary, hint=hint), *error.findings]) from None
    return found


def _rules_of(root: Mapping, environment: str) -> Mapping:
    """The tree with nothing but policies and gates, overridden as that environment does."""
    environments = root.get("environments")
    if isinstance(environments, Mapping) and environment in environments.items:
        root, _ = overlaid(root, environment)
    kept = {key: pair for key, pair in root.items.items() if key in _RULES}
    policies = root.get("policies")
    if isinstance(policies, Mapping):
        known = {name: pair for name, pair in policies.items.items() if not _of_no_kind_here(pair[1])}
        kept["policies"] = (kept["policies"][0], policies.with_items(known))
    return root.with_items(kept)


def _of_no_kind_here(policy: Node) -> bool:
    """Whether a policy judges a kind that nobody has, and so nothing that could be declared now."""
    scope = policy.get("applies_to") if isinstance(policy, Mapping) else None
    if not isinstance(scope, Scalar) or not isinstance(scope.value, str) or not NAME.match(scope.value):
        return False
    return scope.value not in get_args(PolicyScope) and scope.value not in installed()


def _resolved(report: Report, view: View, folder: _Snapshot) -> dict[Address, Resource]:
    found: dict[Address, Resource] = {}

    def add(kind: str, name: str, spec: Spec) -> None:
        where = report.where((BY_NAME[kind].section, name), at_key=True)
        address = Address(kind, name)
        found[address] = Resource(address, spec, kind_of(kind).revision(spec), where=where)

    for name, gate in view.gates.items():
        add("gate", name, {**gate_spec(report, folder.text, name, gate), "protect": gate.protect})
    for name, policy in view.policies.items():
        add("policy", name, {**policy_spec(policy), "protect": policy.protect})
    return found


@dataclass(frozen=True)
class _Snapshot:
    """The project's folder as of a git revision; it answers as ``Files`` does."""

    files: ReadOnly[str, bytes]
    base: str

    def shown(self, source: str) -> str:
        return f"{self.base}:{source}"

    def read(self, source: str) -> bytes:
        refuse_outside(source)
        try:
            return self.files[normpath(source)]
        except KeyError:
            raise FileRefused(f"there is no file {source!r} in {self.base}", "Correct the path there.") from None

    def text(self, source: str) -> str:
        data = self.read(source)
        if len(data) > MAX_TEXT_BYTES:
            raise too_large(source)
        return text_of(data, source)

    def matching(self, pattern: str) -> list[str]:
        refuse_outside(pattern)
        parts = normpath(pattern).split("/")
        return sorted(path for path in self.files if matches(path.split("/"), parts))
