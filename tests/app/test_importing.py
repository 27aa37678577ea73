"""What is taken into the record is what is live: read from a real file, or from what a gateway says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmctl.app.importing import Imported, import_live
from llmctl.app.recorded_change import changing
from llmctl.app.unreject import unreject
from llmctl.app.workspace import Workspace, open_workspace
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import Denied, InvalidInput, LlmctlError, Locked, ProviderError
from llmctl.core.gateway_config import Route
from llmctl.core.protocols import Change, GatewayReading
from llmctl.core.resources import ALL, Key, Reading, Recorded, Rejection, Resource
from llmctl.live import LiveState
from llmctl.providers.local.launch import EndpointFile
from llmctl.providers.local.layout import Layout
from llmctl.record import Lock
from tests.plan.builders import application, desired, live
from tests.record.helpers import make_repository

FILE = "apiVersion: llmctl/v1\nproject: acme\nenvironments: {dev: {target: local}}\n"
APP = application(fallback=True)
ROUTE, MAIN, SPARE = Address("route", "support"), Address("endpoint", "main"), Address("endpoint", "spare")
SERVING = f"support@{APP[ROUTE].revision}"
RUNNING = f"main@{APP[MAIN].revision}"


class World:
    """A project of which the file declares, the target has and the record knows what a test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_repository(folder)
        (folder / "llmops.yaml").write_text(FILE)
        self.workspace = open_workspace(str(folder / "llmops.yaml"), None)
        self._patch = monkeypatch
        self.declares(APP)
        self.has(live(APP))

    def declares(self, resources: Mapping[Address, Resource]) -> None:
        self._patch.setattr(Workspace, "resolved", SimpleNamespace(desired=desired(resources)))

    def has(self, seen: LiveState) -> None:
        """That is live; endpoints have their files, as the local target writes them."""
        self._patch.setattr(Workspace, "read_live", lambda *_: seen)
        layout = Layout.of(self.workspace.root, "dev")
        layout.make()
        for key, there in seen.readings["endpoint"].found.items():
            EndpointFile(key, there.state, (4711,)).write(layout.endpoint_file(key))

    def knows(self, *addresses: Address) -> None:
        with changing(self.workspace, "apply", print) as held:
            attempt = held.begin()
            known = {
                a: Recorded(a, APP[a].spec, APP[a].revision, 1, APP[a].needs, (APP[a].revision,)) for a in addresses
            }
            attempt.commit(Change("some", known))
            attempt.close("applied", subject="some", decisions={}, rejections=())

    def takes_in(self, address: Address, found: str) -> Imported:
        return import_live(self.workspace, str(address), found, "a reason", print)

    def refuses(self, address: str, found: str, error: type[LlmctlError], *said: str) -> None:
        """It is refused with these words, and nothing is recorded."""
        head = self.workspace.reader.head()
        with pytest.raises(error) as refused:
            import_live(self.workspace, address, found, "", print)
        text = "\n".join(f"{d.summary}\n{d.detail}\n{d.hint}" for d in refused.value.diagnostics())
        assert [words for words in said if words not in text] == [], text
        assert self.workspace.reader.head() == head


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "project", monkeypatch)


def served(change: Callable[[Route], Route | None]) -> LiveState:
    """The application, with another route in its gateway."""
    seen = live(APP)
    config = seen.gateway.configs["local"]
    route = change(config.routes["support"])
    routes = {} if route is None else {"support": route}
    return LiveState(seen.readings, replace(seen.gateway, configs={"local": replace(config, routes=routes)}))


@pytest.mark.parametrize("found", [RUNNING, RUNNING[:9], "main"], ids=["whole", "first digits", "the only one"])
def test_an_endpoint_as_its_file_has_it(world: World, found: str) -> None:
    done = world.takes_in(MAIN, found)
    assert (done.resource.spec, done.resource.revision) == (APP[MAIN].spec, APP[MAIN].revision)
    assert (done.resource.needs, done.resource.version, done.differs) == (APP[MAIN].needs, 1, ())
    assert world.workspace.recorded().resources == {MAIN: done.resource}
    detail = world.workspace.reader.entry(done.serial)
    assert (detail.entry.action, detail.decisions["live"], detail.decisions["reason"]) == (
        "import",
        RUNNING,
        "a reason",
    )
    (change,) = detail.decisions["changes"]
    assert (change["action"], change["before"], change["after"]) == ("import", "", APP[MAIN].revision)
    world.refuses(str(MAIN), found, InvalidInput, "endpoint.main is recorded already, as v1", "llmctl state rm")


def test_a_route_as_the_gateway_has_it_with_what_a_gateway_does_not_know_as_declared(world: World) -> None:
    done = world.takes_in(ROUTE, SERVING)
    assert (done.resource.spec, done.resource.needs, done.differs) == (APP[ROUTE].spec, APP[ROUTE].needs, ())
    assert done.resource.revision == APP[ROUTE].revision


def test_what_is_declared_otherwise_is_told_and_not_recorded(world: World) -> None:
    other = application(system="Be kind.", fallback=True, canary=(50, 100), aliases=("help",), replicas=2)
    world.declares(other)
    route, endpoint = world.takes_in(ROUTE, SERVING), world.takes_in(MAIN, RUNNING)
    assert route.resource.spec["template"] == APP[ROUTE].spec["template"]
    assert route.resource.spec["aliases"] == []
    assert route.resource.spec["rollout"] == other[ROUTE].spec["rollout"]  # nothing live says anything else
    assert {d.path.partition("[")[0] for d in route.differs} == {"prompt_revision", "aliases"}
    assert [d.path for d in endpoint.differs] == ["replicas.max", "replicas.min"]


def test_the_prompt_is_found_by_what_it_says(world: World) -> None:
    """The file has the text that is served under another name by now, or the record has."""
    prompt, other = Address("prompt", "answer"), Address("prompt", "greeting")
    changed = application(system="Be kind.", fallback=True)
    world.declares({**changed, other: replace(APP[prompt], address=other)})
    assert world.takes_in(ROUTE, SERVING).resource.spec["prompt"] == "greeting"


def test_a_recorded_prompt_is_found_and_one_that_nobody_has_is_called_as_declared(world: World) -> None:
    world.declares(application(system="Be kind.", fallback=True))
    assert world.takes_in(ROUTE, SERVING).resource.spec["prompt"] == "answer"


def test_an_endpoint_that_is_down_is_known_from_the_record_or_not_at_all(world: World) -> None:
    seen = live(APP)
    found = {k: v for k, v in seen.readings["endpoint"].found.items() if k.name != "spare"}
    world.has(LiveState({**seen.readings, "endpoint": Reading(found)}, seen.gateway))
    world.refuses(str(ROUTE), SERVING, ProviderError, "endpoint spare@", "does not run and is not recorded")
    world.knows(SPARE)
    assert world.takes_in(ROUTE, SERVING).resource.spec == APP[ROUTE].spec


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda route: replace(route, promoted="", weights={}), ["No revision of it serves yet"]),
        (lambda route: replace(route, weights={}), ["in the middle of a change"]),
        (lambda _: None, ["no route support@", "is live"]),
        (
            lambda route: replace(
                route,
                revisions={
                    r: replace(c, messages=({"role": "user", "content": "x"},)) for r, c in route.revisions.items()
                },
            ),
            ["One of the two was changed by other means"],
        ),
    ],
    ids=["staged alone", "no traffic", "not there", "edited"],
)
def test_a_route_that_does_not_serve_as_it_says_is_refused(
    world: World, change: Callable[[Route], Route | None], said: Collection[str]
) -> None:
    world.has(served(change))
    world.refuses(str(ROUTE), SERVING, LlmctlError, *said)


def test_replicas_that_do_not_agree_are_refused(world: World) -> None:
    seen = live(APP)
    config = seen.gateway.configs["local"]
    world.has(LiveState(seen.readings, replace(seen.gateway, configs={"a": config, "b": replace(config, routes={})})))
    world.refuses(str(ROUTE), SERVING, LlmctlError)


@pytest.mark.parametrize(
    ("gateway", "said"),
    [
        (
            GatewayReading(running=True, unreadable="it does not answer"),
            "the gateway cannot be read: it does not answer",
        ),
        (GatewayReading(running=False), "the gateway does not run"),
    ],
    ids=["silent", "down"],
)
def test_a_gateway_that_does_not_answer_has_no_routes_to_take_in(
    world: World, gateway: GatewayReading, said: str
) -> None:
    world.has(LiveState(live(APP).readings, gateway))
    world.refuses(str(ROUTE), SERVING, ProviderError, said)


def test_unreadable_is_not_absent_and_ill_is_not_known(world: World) -> None:
    seen = live(APP)
    (key,) = (k for k in seen.readings["endpoint"].found if k.name == "main")
    reason = Diagnostic("supervisord does not answer", hint="Kill it.")
    readings: dict[str, tuple[Reading[Any], tuple[str, ...]]] = {
        "all": (Reading(unreadable={ALL: reason}), ("cannot be read: supervisord does not answer", "Kill it.")),
        "this": (Reading(unreadable={key: reason}), (f"endpoint {key} cannot be read",)),
        "ill": (
            Reading({key: replace(seen.readings["endpoint"].found[key], healthy=False, detail="it is fatal")}),
            ("is not healthy, so it cannot be told what it is", "it is fatal"),
        ),
    }
    for reading, said in readings.values():
        world.has(LiveState({**seen.readings, "endpoint": reading}, seen.gateway))
        world.refuses(str(MAIN), RUNNING[:8], ProviderError, *said)


def test_of_two_revisions_one_must_be_named(world: World) -> None:
    seen = live(APP)
    (there,) = (v for k, v in seen.readings["endpoint"].found.items() if k.name == "main")
    old = replace(there, key=Key("main", "0" * 16))
    found = {**seen.readings["endpoint"].found, old.key: old}
    world.has(LiveState({**seen.readings, "endpoint": Reading(found)}, seen.gateway))
    world.refuses(str(MAIN), "main", InvalidInput, "several revisions of endpoint.main", RUNNING)
    assert world.takes_in(MAIN, RUNNING).resource.revision == APP[MAIN].revision


@pytest.mark.parametrize("content", ["", "nonsense"], ids=["gone", "damaged"])
def test_an_endpoint_without_its_file_cannot_be_told(world: World, content: str) -> None:
    path = Layout.of(world.workspace.root, "dev").endpoint_file(Key.parse(RUNNING))
    if content:
        path.write_text(content)
    else:
        path.unlink()
    world.refuses(str(MAIN), RUNNING, ProviderError, f"{'cannot be read' if content else 'is gone'}")


def test_what_is_not_declared_is_refused_with_what_to_write(world: World) -> None:
    world.declares({})
    world.refuses(
        str(MAIN),
        RUNNING,
        InvalidInput,
        "llmops.yaml does not declare endpoint.main",
        'Write under `endpoints:` in llmops.yaml: `main: {"model": "tiny", "engine": "llama.cpp", "context": 512',
    )
    world.refuses(
        str(ROUTE), SERVING, InvalidInput, '`support: {"prompt": "', '"endpoint": "main", "fallback": ["spare"]}`'
    )


@pytest.mark.parametrize(
    ("address", "found", "said"),
    [
        ("support", "support", "'support' is not an address"),
        ("prompt.answer", "answer", "a prompt needs no import"),
        ("model.tiny", "tiny", "a model needs no import"),
        ("gate.faq", "faq", "a gate does not run"),
        ("policy.open", "open", "a policy does not run"),
        ("endpoint.other", RUNNING, f"{RUNNING} lives under the name main"),
        ("endpoint.main", "main@ffff", "no endpoint main@ffff is live"),
        ("route.support", "support@ffff", "route support@ffff does not serve"),
    ],
)
def test_what_cannot_be_meant_is_refused(world: World, address: str, found: str, said: str) -> None:
    world.refuses(address, found, InvalidInput, said)


def test_what_a_rollback_left_behind_is_refused_until_it_is_good_again(world: World) -> None:
    bad = Rejection(ROUTE, APP[ROUTE].revision, 1, "wrong tone")
    with changing(world.workspace, "rollback", print) as held:
        held.begin().close("rolled back", subject="back", decisions={}, rejections=(bad,))
    world.refuses(str(ROUTE), SERVING, Denied, "was rejected by the rollback of serial 1", "wrong tone", "unreject")
    unreject(world.workspace, bad.revision, "it was the data", print)
    assert world.takes_in(ROUTE, SERVING).serial == 3


def test_while_somebody_works_it_is_refused(world: World) -> None:
    with Lock(world.workspace.repository, "dev").acquire("llmctl apply"), pytest.raises(Locked):
        world.takes_in(MAIN, RUNNING)
