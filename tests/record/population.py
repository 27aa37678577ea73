"""The record of an imagined production: entries written one after the other, as applies would."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

from llmctl.core.address import Address
from llmctl.core.decisions import Approval, BreakGlass
from llmctl.core.digests import Json, digest
from llmctl.core.evidence import Evidence, Judgement
from llmctl.core.kinds import kind_of
from llmctl.core.protocols import Change
from llmctl.core.resources import Recorded, RecordState, Rejection
from llmctl.gates.verdicts import Threshold, judge, judge_drop, not_applicable, overall
from llmctl.record import Action, Attempt, Outcome, Reader, Repository, open_repository
from llmctl.record.approvals import remove_approvals, write_approval
from tests.people import allowed, new_key
from tests.record.helpers import git, make_repository

ENV, PROJECT = "prod", "acme-support"
BEGUN = 1_763_629_200  # 2025-11-20 09:00 UTC, in seconds
STEP_S = 41 * 3600 + 1234  # between two applies: about 200 a year
ROWS = 210
HOSTILE = "=HYPERLINK(\"http://x\") <script>alert('x')</script> \u202eesrever\u202c \x07 & </td>"
PEOPLE = {
    "ada": "Ada Lovelace <ada@acme.example>",
    "bob": "Bob O'Hara <bob@acme.example>",
    "chi": "Chiara Müller <chiara@acme.example>",
    "bot": "acme-ci <ci@acme.example>",
}


class Population:
    """Writes one entry after the other, and remembers what is recorded. Who applies and who approves signs, with a
    key that the repository's settings allow."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_repository(folder)
        git_folder = folder / ".git"
        for setting in ("user.name", "user.email", "commit.gpgsign"):
            git(folder, "config", "--unset", setting)
        keys = {name: self._person(git_folder / "people" / name, person) for name, person in PEOPLE.items()}
        signers = allowed(git_folder / "allowed_signers", *((_email(PEOPLE[name]), key) for name, key in keys.items()))
        git(folder, "config", "gpg.ssh.allowedSignersFile", str(signers))
        self.draw = random.Random(7)
        self.now = float(BEGUN)
        self.resources: dict[Address, Recorded] = {}
        self.rejections: tuple[Rejection, ...] = ()
        self.broken: tuple[BreakGlass, ...] = ()

    def _person(self, home: Path, person: str) -> Path:
        """Their key, beside settings by which git signs with it."""
        home.mkdir(parents=True)
        key = new_key(home)
        settings = {"user.name": person.partition(" <")[0], "user.email": _email(person), "commit.gpgsign": "true"}
        for name, value in {**settings, "gpg.format": "ssh", "user.signingkey": str(key)}.items():
            git(self.folder, "config", "--file", str(home / "gitconfig"), name, value)
        return key

    @contextmanager
    def acting(self, who: str, at: float) -> Iterator[Repository]:
        """The repository as this person has it, at that moment."""
        own = {
            "GIT_CONFIG_GLOBAL": str(self.folder / ".git" / "people" / who / "gitconfig"),
            "GIT_AUTHOR_DATE": f"{int(at)} +0000",
            "GIT_COMMITTER_DATE": f"{int(at)} +0000",
        }
        with mock.patch.dict(os.environ, own), mock.patch.object(time, "time", return_value=at):
            yield open_repository(self.folder)

    @property
    def reader(self) -> Reader:
        return Reader(open_repository(self.folder), ENV)

    @property
    def serial(self) -> int:
        return self._state().serial

    # -- one entry ------------------------------------------------------------------------------

    def entry(
        self,
        who: str,
        commits: Sequence[Change],
        /,
        *,
        subject: str,
        action: Action = "apply",
        outcome: Outcome = "applied",
        trailers: Sequence[tuple[str, str]] = (),
        bare: bool = False,
        **decided: Json,
    ) -> int:
        """One whole attempt; what was not said stands as an apply of the CI would decide it."""
        state = self._state()
        self.now += STEP_S
        serial = state.serial + 1
        run = f"https://ci.acme.example/llm/runs/{4000 + serial}" if who == "bot" else ""
        plan = "" if action in ("unreject", "state rm", "import", "gc") else digest({"plan": serial})
        with self.acting(who, self.now) as repository:
            if serial % 3 == 0:
                git(self.folder, "commit", "-q", "--allow-empty", "-m", f"Edit {serial}")
            attempt = Attempt.begin(
                repository, ENV, state, fence=serial, action=action, plan_digest=plan, project=PROJECT,
                source_commit=repository.head_commit(), actor=repository.actor(), run=run,
            )  # fmt: skip
            for change in commits:
                attempt.commit(change)
            about: dict[str, Json] = {
                "action": action,
                "reason": "",
                "actor": repository.actor(),
                "machine": "runner-3" if who == "bot" else f"{who}-laptop",
                "run": run,
                "plan": plan,
                "source_commit": repository.head_commit(),
                "source_modified": who != "bot" and serial % 3 == 0,
                **decided,
            }
            attempt.close(
                outcome,
                subject=subject,
                decisions=decided if bare else about,
                rejections=self.rejections,
                break_glass=self.broken,
                trailers=trailers,
            )
        if outcome in ("applied", "rolled back"):
            for change in commits:
                for address, recorded in change.resources.items():
                    if recorded is None:
                        self.resources.pop(address, None)
                    else:
                        self.resources[address] = recorded
        return serial

    def _state(self) -> RecordState:
        return self.reader.state()

    @property
    def at(self) -> str:
        """The moment of the entry that comes next, as the record writes it."""
        return _utc(self.now + STEP_S)

    def approved(self, *names: str) -> tuple[Json, list[tuple[str, str]]]:
        """What decisions and trailers of the next entry say of these people's approvals of its plan."""
        given: list[Approval] = []
        plan, until = digest({"plan": self.serial + 1}), datetime.fromtimestamp(self.now + STEP_S + 86400, UTC)
        for name in names:
            with self.acting(name, self.now + STEP_S - 900) as repository:
                found, judged = write_approval(
                    repository, ENV, project=PROJECT, plan=plan, seal=plan, expires=until, source=""
                )
                text = found.raw.decode()
                given.append(Approval(judged.principal, judged.key, plan, found.at, found.expires, text))
                remove_approvals(repository, ENV)
        said = [("Approval", f"{a.signer} {a.key}") for a in given]
        return {"required": 2, "given": [a.to_json() for a in given]}, said

    # -- resources ------------------------------------------------------------------------------

    def put(self, address: str, spec: dict[str, Json], needs: Sequence[str] = ()) -> Recorded:
        """The next version of a resource."""
        where = Address.parse(address)
        old = self.resources.get(where)
        name = kind_of(where.kind).revision(spec)
        revisions = (*(old.revisions if old else ()), name)
        return Recorded(
            where, spec, name, len(revisions), tuple(map(Address.parse, needs)), tuple(dict.fromkeys(revisions))
        )

    def route(self, prompt: Recorded, name: str = "support", percent: int = 100) -> Recorded:
        """The route that serves a prompt."""
        endpoint = self.resources[Address("endpoint", "support")]
        spec = {
            "aliases": [],
            "chain": [{"endpoint": "support", "revision": endpoint.revision, "spec": endpoint.spec}],
            "chain_revisions": [f"support@{endpoint.revision}"],
            "endpoint": "support",
            "fallback": [],
            "prompt": prompt.address.name,
            "prompt_revision": prompt.revision,
            "protect": False,
            "rollout": {"canary": sorted({percent, 100}), "hold_s": 0.0},
            "template": {k: prompt.spec[k] for k in ("messages", "parameters", "variables")},
        }
        return self.put(f"route.{name}", spec, [str(prompt.address), "endpoint.support"])

    def evidence(self, route: Recorded, baseline: str, wrong: int, slow: float = 30.0) -> Evidence:
        """What the gate measured: ``wrong`` of the rows, and a latency of about ``slow`` milliseconds."""
        spec = dict(self.resources[Address("gate", "faq")].spec)
        rows = [0.0] * wrong + [1.0] * (ROWS - wrong)
        times = [slow * (0.8 + 0.4 * self.draw.random()) for _ in range(ROWS)]
        drop = Threshold("exact_match", "max_drop", 0.02, 0.95, False)
        judgements: list[Judgement] = [
            judge(Threshold("exact_match", "min", 0.95, 0.95, False), rows, 60_000),
            judge_drop(drop, [(1.0, row) for row in rows]) if baseline else not_applicable(drop),
            judge(Threshold("latency_p95_ms", "max", 2000.0, 0.95, False), times, 60_000),
        ]
        return Evidence(
            gate="faq",
            gate_revision=kind_of("gate").revision(spec),
            gate_spec=spec,
            route=route.address.name,
            route_revision=route.revision,
            baseline_revision=baseline,
            dataset_digest=spec["dataset_digest"],
            key=digest({"route": route.revision, "gate": spec}),
            samples=ROWS,
            judgements=tuple(judgements),
            verdict=overall(j.verdict for j in judgements),
            failing=tuple(f"row-{n:03}" for n in range(wrong)),
            versions={"scipy": "1.17.0"},
            measured_at=self.at,
            seconds=4.2,
        )


def _email(person: str) -> str:
    return person.partition("<")[2].rstrip(">")


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def record(*resources: Recorded, verb: str = "") -> list[Change]:
    """A change for each, as an apply makes them."""
    return [
        Change(f"{verb or ('create' if r.version == 1 else 'update')} {r.address} v{r.version}", {r.address: r})
        for r in resources
    ]


def planned(*pairs: tuple[Recorded | None, Recorded | None], reason: str) -> list[Json]:
    """``changes`` as decisions hold them, of (before, after)."""
    found: list[Json] = []
    for before, after in pairs:
        address = (after or before).address  # type: ignore[union-attr]
        action = "create" if before is None else "delete" if after is None else "update"
        found.append(
            {
                "address": str(address),
                "action": "replace" if action == "update" and address.kind == "route" else action,
                "reason": reason,
                "before": before.revision if before else "",
                "after": after.revision if after else "",
            }
        )
    return found


def steps(*done: str, failed: str = "", text: str = "") -> list[Json]:
    found = [{"id": step, "state": "done", "text": "", "seconds": round(0.01 + len(step) / 90, 3)} for step in done]
    return found + ([{"id": failed, "state": "failed", "text": text, "seconds": 4.2}] if failed else [])


def policies(waived: bool = False, denied: bool = False) -> list[Json]:
    """What two policies said."""
    waiver = {
        "resource": "model.support-tiny",
        "until": "2026-12-31",
        "reason": "LEGAL-17: the licence is being negotiated",
        "approved_by": "chiara@acme.example",
    }
    licence = {
        "policy": "open-licence",
        "severity": "deny",
        "address": "model.support-tiny",
        "ok": not (waived or denied),
        "message": "Models must carry an open licence.",
        "error": "",
        "basis": "head",
        "waiver": waiver if waived else None,
        "note": "",
    }
    canary = {**licence, "policy": "canary-first", "severity": "warn", "address": "route.support", "ok": True}
    return [licence, {**canary, "message": "Begin with a canary.", "waiver": None}]
