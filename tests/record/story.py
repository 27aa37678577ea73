"""The record of a year: applies that passed and failed, rollbacks, a crash, broken glass, state operations.

    python -m tests.record.story [FOLDER] [--applies 200]

Writes it through real attempts into a new git repository, exports it as a page, and prints where both are. What
happens is drawn by chance from a fixed seed, so that the same number of applies gives the same story; the tests
use short ones.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass, PromotionProof
from llmctl.core.digests import Json, digest
from llmctl.core.protocols import Change
from llmctl.core.resources import Recorded, Rejection
from tests.record.population import ENV, HOSTILE, PEOPLE, ROWS, Population, planned, policies, record, steps

_TONES = ("Be brief.", "Be kind.", "Name your source.", "Answer in the customer's language.", "Never guess prices.")
_WHY = ("customers asked for it", "CHG-{n}: review of the quarter", "OPS-{n}", "")


def begin(story: Population) -> None:
    """The first apply makes everything."""
    weights = {"adapters": [], "digest": digest("weights")}
    rows = {"format": "jsonl", "license": "CC-BY-4.0", "protect": False, "sensitivity": "public"}
    train = story.put("dataset.faq-train", {**rows, "bytes": 9120, "digest": digest("train"), "rows": 420})
    test = story.put("dataset.faq-eval", {**rows, "bytes": 26503, "digest": digest("eval"), "rows": ROWS})
    model = story.put(
        "model.support-tiny",
        {"api_key": None, "license": "Apache-2.0", "protect": False, "source": "models/tiny.gguf", "weights": weights},
        ["dataset.faq-train"],
    )
    endpoint = story.put(
        "endpoint.support",
        {
            "api_key": None, "context": 512, "engine": "llama.cpp", "model": "support-tiny",
            "model_revision": model.revision, "options": {"slots": 4, "threads": 1}, "protect": False,
            "replicas": {"min": 1, "max": 1}, "timeouts": {"drain_s": 30.0, "ready_s": 180.0}, "weights": weights,
        },
        ["model.support-tiny"],
    )  # fmt: skip
    prompt = story.put("prompt.answer", _prompt("You are Acme's support assistant."))
    policy = story.put(
        "policy.open-licence",
        {
            "applies_to": "model", "message": "Models must carry an open licence.", "protect": False,
            "require": 'resource.license in ["Apache-2.0", "MIT"]', "severity": "deny", "waivers": [],
        },
    )  # fmt: skip
    gate = story.put("gate.faq", _gate(test), ["route.support", "dataset.faq-eval"])
    for made in (endpoint, gate):
        story.resources[made.address] = made
    route = story.route(prompt)
    first = (train, test, model, prompt, endpoint, policy)
    proof = story.evidence(route, "", 0)
    changes = [*record(*first), Change(f"gate faq PASS for support@{route.revision[:8]}", evidence=[proof])]
    story.entry(
        "ada",
        [*changes, *record(gate), *record(route, verb="promote")],
        subject="apply: route.support v1, dataset.faq-eval v1, dataset.faq-train v1 and 5 more",
        changes=planned(*((None, r) for r in (*first, gate, route)), reason="not recorded yet"),
        drift=[],
        policies=policies(),
        steps=steps(*(f"provision:{r.address}@{r.revision}" for r in first), f"promote:{route.address}"),
    )


def _prompt(text: str) -> dict[str, Json]:
    return {
        "messages": [{"role": "system", "content": text}, {"role": "user", "content": "{{ question }}"}],
        "parameters": {"max_tokens": 48, "temperature": 0.0},
        "protect": False,
        "variables": {"question": "string"},
    }


def _gate(dataset: Recorded) -> dict[str, Json]:
    metrics: dict[str, Json] = {
        "exact_match": {"decide": "interval", "min": 0.95, "max_drop": 0.02},
        "latency_p95_ms": {"decide": "interval", "max": 2000.0},
    }
    return {
        "concurrency": 16, "confidence": 0.95, "dataset": "faq-eval", "dataset_digest": dataset.spec["digest"],
        "dataset_format": "jsonl", "dataset_revision": dataset.revision, "expected": "answer",
        "inputs": {"question": "question"}, "metrics": metrics, "protect": False, "route": "support", "slices": {},
        "timeouts": {"request_s": 60.0, "run_s": 1800.0},
    }  # fmt: skip


def release(story: Population, *, wrong: int = 0, who: str = "bot", reason: str = "", text: str = "") -> int:
    """A new prompt behind its gate; with many ``wrong`` answers it fails, and is taken back."""
    old_prompt, old_route = story.resources[Address("prompt", "answer")], story.resources[Address("route", "support")]
    tone = text or f"{story.draw.choice(_TONES)} (edition {story.serial + 1})"
    prompt = story.put("prompt.answer", _prompt(f"You are Acme's support assistant.\n{tone}"))
    route = story.route(prompt)
    proof = story.evidence(route, old_route.revision, wrong, slow=30 + story.draw.random() * 40)
    verdict = proof.verdict.value
    others = [name for name in ("ada", "bob", "chi") if name != who][:2]
    given, trailers = story.approved(*others)
    plan = planned((old_prompt, prompt), (old_route, route), reason="messages changed")
    where = f"route.support@{route.revision[:8]}"
    gate_step = f"gate:faq:route.support@{route.revision}"
    proven = Change(f"gate faq {verdict} for {where}", evidence=[proof], trailers=[("Resource", "gate.faq")])
    stored = record(prompt)
    done = [f"provision:prompt.answer@{prompt.revision}", f"stage:{route.address}@{route.revision}"]
    waived = story.serial % 7 == 0
    if proof.verdict.blocks:
        before = replace(old_prompt, revisions=prompt.revisions)
        back = Change(f"take back prompt.answer@{prompt.revision[:8]}", {prompt.address: old_prompt})
        assert before.revision == old_prompt.revision
        told = steps(*done, failed=gate_step, text=f"{verdict} on {ROWS} samples")
        return story.entry(
            who, [*stored, proven, back], subject=f"apply: gate.faq failed for {where}", outcome="failed",
            reason=reason, changes=plan, drift=[], policies=policies(waived), steps=told, approvals=given,
            trailers=trailers,
        )  # fmt: skip
    return story.entry(
        who, [*stored, proven, *record(route, verb="promote")],
        subject=f"apply: route.support v{route.version}, prompt.answer v{prompt.version}",
        reason=reason, changes=plan, drift=[], policies=policies(waived), approvals=given, trailers=trailers,
        steps=steps(*done, gate_step, f"shift:{where}", f"promote:{where}"),
    )  # fmt: skip


def roll_back(story: Population, reason: str) -> int:
    """To the prompt before; the revision that is left is rejected."""
    before = story.reader
    prompt, route = (story.resources[a] for a in (Address("prompt", "answer"), Address("route", "support")))
    for entry in before.entries():
        then = before.state_at(entry.serial).resources
        if then[route.address].revision != route.revision:
            break
    old = [replace(then[a], revisions=story.resources[a].revisions) for a in (prompt.address, route.address)]
    serial = story.serial + 1
    left = Rejection(route.address, route.revision, serial, reason, PEOPLE["ada"])
    story.rejections = (*story.rejections, left)
    what = f"rollback to serial {entry.serial}: route.support v{old[1].version}"
    return story.entry(
        "ada", record(*old, verb="restore"), subject=what,
        action="rollback", outcome="rolled back", reason=reason, drift=[], policies=policies(),
        changes=planned((prompt, old[0]), (route, old[1]), reason="rolled back"),
        steps=steps(f"shift:route.support@{old[1].revision}", f"promote:route.support@{old[1].revision}"),
    )  # fmt: skip


def allow_again(story: Population) -> int:
    found = story.rejections[-1]
    story.rejections = story.rejections[:-1]
    return story.entry(
        "bob", [], subject=f"unreject {found.address}@{found.revision[:8]}: the data was wrong, not the answer",
        action="unreject", reason="the data was wrong, not the answer", revision=found.revision,
        address=str(found.address),
    )  # fmt: skip


def crash(story: Population) -> int:
    """A runner that was destroyed: what it had recorded is in, and one effect has no outcome."""
    old = story.resources[Address("prompt", "answer")]
    prompt = story.put("prompt.answer", _prompt("You are Acme's support assistant.\nHalf done."))
    back = Change(f"take back prompt.answer@{prompt.revision[:8]}", {prompt.address: old})
    return story.entry(
        "bot", [*record(prompt), back], subject="apply interrupted", outcome="interrupted", bare=True,
        interrupted=True, open_intents=[f"stage:route.support@{prompt.revision}"],
    )  # fmt: skip


def break_glass(story: Population, reason: str) -> int:
    """Past the gate and one approval, in an emergency."""
    old_prompt, old_route = story.resources[Address("prompt", "answer")], story.resources[Address("route", "support")]
    prompt = story.put("prompt.answer", _prompt(f"You are Acme's support assistant.\nStatus page: {story.serial}."))
    route = story.route(prompt)
    broken = BreakGlass(story.serial + 1, reason, PEOPLE["ada"], story.at, (Address("gate", "faq"),), 2)
    story.broken = (*story.broken, broken)
    return story.entry(
        "ada", [*record(prompt), *record(route, verb="promote")],
        subject=f"apply: route.support v{route.version}, prompt.answer v{prompt.version}", reason=reason,
        changes=planned((old_prompt, prompt), (old_route, route), reason="messages changed"), drift=[],
        policies=policies(), steps=steps(f"promote:route.support@{route.revision}"), break_glass=broken.to_json(),
        approvals={"required": 2, "given": []}, trailers=[("Break-Glass", reason)],
    )  # fmt: skip


def reconcile(story: Population) -> int:
    """An ordinary apply that proves what an emergency had skipped."""
    route = story.resources[Address("route", "support")]
    closed, story.broken = story.broken, ()
    proof = story.evidence(route, "", 0)
    given, trailers = story.approved("bob", "chi")
    serials = [b.serial for b in closed]
    return story.entry(
        "bot", [Change(f"gate faq PASS for support@{route.revision[:8]}", evidence=[proof])],
        subject="apply: gate.faq passed for what serves", reconciles=serials, changes=[], drift=[],
        policies=policies(), steps=steps(f"gate:faq:route.support@{route.revision}"), approvals=given,
        trailers=[*trailers, *(("Reconciles", str(n)) for n in serials)],
    )  # fmt: skip


def promote(story: Population) -> int:
    """A model that passed in staging."""
    model = story.resources[Address("model", "support-tiny")]
    weights = {"adapters": [], "digest": digest(f"weights {story.serial}")}
    new = story.put("model.support-tiny", {**model.spec, "weights": weights}, ["dataset.faq-train"])
    head = digest(f"staging {story.serial}")[7:47]
    proof = PromotionProof(
        "staging", head, story.serial + 40, "signed",
        {"support": {"serial": story.serial + 39, "revision": digest("route")[7:23],
                     "artifacts": [f"model.support-tiny@{new.revision}"], "evidence": [digest("there")]}},
    )  # fmt: skip
    return story.entry(
        "bot", record(new), subject=f"apply: model.support-tiny v{new.version}", promotion=proof.to_json(),
        changes=planned((model, new), reason="weights changed"), drift=[], policies=policies(waived=True),
        steps=steps(f"provision:model.support-tiny@{new.revision}"),
    )  # fmt: skip


def restore(story: Population) -> int:
    """Somebody stopped an engine by hand; an apply put it back."""
    return story.entry(
        "bot", [], subject="apply: endpoint.support restored", changes=[], policies=policies(),
        drift=[{"address": "endpoint.support", "summary": "no process serves it", "detail": ""}],
        steps=steps("restore:endpoint.support"),
    )  # fmt: skip


def rename(story: Population, old: str, new: str) -> int:
    """`moved` in the file: the record takes the history along."""
    was = story.resources[Address.parse(old)]
    now = replace(was, address=Address.parse(new))
    move = Change(f"rename {old} to {new}", {was.address: None, now.address: now})
    change = {"address": new, "action": "move", "reason": f"renamed from {old}", "before": was.revision,
              "after": now.revision}  # fmt: skip
    return story.entry(
        "chi", [move], subject=f"apply: {new} v{now.version}", changes=[change], drift=[], policies=policies(),
        steps=steps(f"move:{new}"),
    )  # fmt: skip


def forget(story: Population, address: str) -> int:
    """`state rm`."""
    where = Address.parse(address)
    gone = [Change(f"forget {address}", {where: None})]
    return story.entry("ada", gone, subject=f"state rm {address}", action="state rm", reason="it moved to another team")


def take_in(story: Population, address: str) -> int:
    """`import`."""
    rows = {"bytes": 1, "digest": digest(address), "format": "jsonl", "license": "", "protect": False, "rows": 12}
    return story.entry(
        "ada", record(story.put(address, rows), verb="import"), subject=f"import {address}", action="import",
        reason=HOSTILE,
    )  # fmt: skip


#: serial: what happens there, whatever chance says elsewhere
_FIXED: Mapping[int, str] = {
    5: "fail", 6: "waits", 8: "back", 9: "unreject", 11: "crash", 13: "import", 14: "rename", 15: "forget", 17: "glass",
    19: "reconcile", 21: "promote", 23: "restore", 25: "hostile",
}  # fmt: skip


def populate(folder: Path, applies: int) -> Population:
    """A record of so many entries."""
    story = Population(folder)
    begin(story)
    while story.serial < applies - 2:
        happen(story, _FIXED.get(story.serial + 1) or story.draw.choices(*_CHANCES)[0])
    if applies > 3:
        release(story, who="bot", reason="the last one")
        break_glass(story, "INC-2203: the prices were wrong, and the gate's data too")
    return story


_CHANCES = (
    ("pass", "fail", "waits", "back", "crash", "glass", "promote", "restore"),
    (70, 10, 3, 5, 2, 1, 5, 4),
)


def happen(story: Population, what: str) -> None:
    """One entry of that kind; where it cannot be, an ordinary release."""
    reason = story.draw.choice(_WHY).format(n=story.serial + 100)
    match what:
        case "fail":
            release(story, wrong=40, reason=reason)
        case "waits":
            release(story, wrong=7, who="chi", reason=reason)
        case "back" if story.resources[Address("route", "support")].version > 1:
            roll_back(story, f"complaints about tone, ticket {story.serial}")
        case "unreject" if story.rejections:
            allow_again(story)
        case "crash":
            crash(story)
        case "import":
            take_in(story, "dataset.prices")
        case "rename":
            rename(story, "dataset.prices", "dataset.price-list")
        case "forget":
            forget(story, "dataset.price-list")
        case "glass" if not story.broken:
            break_glass(story, "INC-2187: the status page was down and customers were told to wait")
        case "reconcile" if story.broken:
            reconcile(story)
        case "promote":
            promote(story)
        case "restore":
            restore(story)
        case "hostile":
            release(story, who="bob", reason=HOSTILE, text=HOSTILE)
        case _ if story.broken and story.serial % 5 == 0:
            reconcile(story)
        case _:
            release(story, who=story.draw.choice(["bot", "bot", "ada", "bob"]), reason=reason)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", nargs="?", type=Path, help="made anew; default: a temporary one")
    parser.add_argument("--applies", type=int, default=200)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="llmctl-population-")) / "acme"
    story = populate(folder, asked.applies)
    page = folder / "audit.html"
    export = [sys.executable, "-m", "llmctl", "audit", "export", "--format", "html", "--out", str(page)]
    subprocess.run(export, cwd=folder, check=True)
    print(f"record  {folder}, {story.serial} entries on llmctl/{ENV}")
    print(f"page    {page}, {page.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
