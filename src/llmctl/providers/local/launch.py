"""What decides an engine process, taken from the spec of an endpoint, and the file that tells the engine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.digests import Json, revision
from llmctl.core.errors import ProviderError
from llmctl.core.resources import Key
from llmctl.providers.local.layout import Layout, read_json, write_json

FORMAT = 1
ENGINE = "llmctl.providers.local.engine"  # the module that a process runs with `python -m`
#: Why an engine could not serve: its exit code, and the number in its one line about the reason. The line is
#: what counts, because supervisord does not tell the exit code of a program that ended within a second.
FAILED, DAMAGED, PORT_TAKEN = 1, 97, 98
REASON = re.compile(r"^llmctl engine: error (?P<code>\d+): (?P<text>.+)$", re.MULTILINE)
_SLOTS, _THREADS, _CONTEXT = 4, 1, 2048  # what the file leaves out
_OPTIONS = ("slots", "threads", "batch")
MAX_REPLICAS = 8
_DRAIN_S = 30.0  # what a file from before `timeouts` leaves out


@dataclass(frozen=True, slots=True)
class Launch:
    """What each llama.cpp process of an endpoint is, but for its port. ``context`` is tokens per slot."""

    key: Key
    model: str  # digest of the weights
    adapters: tuple[tuple[str, float], ...]  # digest, scale
    context: int
    slots: int
    threads: int
    batch: int  # tokens of a prompt at once; 0 is llama.cpp's own choice

    @property
    def digests(self) -> tuple[str, ...]:
        return (self.model, *(digest for digest, _ in self.adapters))

    @property
    def identity(self) -> str:
        """Stands in the process's own command line, so that a process tells what it was started from."""
        return revision(
            {
                "key": str(self.key),
                "model": self.model,
                "adapters": [list(adapter) for adapter in self.adapters],
                "context": self.context,
                "slots": self.slots,
                "threads": self.threads,
                "batch": self.batch,
            }
        )

    @classmethod
    def from_spec(cls, key: Key, spec: Json) -> Launch:
        """Raises ``ProviderError`` for options that this engine does not have and for weights it cannot load."""
        options = spec.get("options") or {}
        unknown = sorted(name for name, value in options.items() if name not in _OPTIONS and value is not None)
        if unknown:
            raise ProviderError(
                f"endpoint {key.name}: llama.cpp has no option {', '.join(unknown)}",
                hint=f"Its options are: {', '.join(sorted(_OPTIONS))}.",
            )
        weights = spec.get("weights") or {}
        if "digest" not in weights:
            raise ProviderError(
                f"endpoint {key.name}: model {spec.get('model')} has no weights that llama.cpp can load",
                hint="Use a model whose source is a GGUF file, or `engine: external`.",
            )
        return cls(
            key=key,
            model=weights["digest"],
            adapters=tuple((a["digest"], float(a.get("scale", 1.0))) for a in weights.get("adapters") or ()),
            context=_count(key, "context", spec.get("context") or _CONTEXT),
            slots=_count(key, "options.slots", options.get("slots") or _SLOTS),
            threads=_count(key, "options.threads", options.get("threads") or _THREADS),
            batch=_count(key, "options.batch", options["batch"]) if options.get("batch") else 0,
        )


def _count(key: Key, field: str, value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ProviderError(f"endpoint {key.name}: {field} must be a whole number above 0, not {value!r}")
    return value


def replica_count(key: Key, spec: Json) -> int:
    """How many processes serve an endpoint: on this machine a fixed number. Raises ``ProviderError``."""
    count = _count(key, "replicas.min", (spec.get("replicas") or {}).get("min", 1))
    if count > MAX_REPLICAS:
        raise ProviderError(f"endpoint {key.name}: the local target runs {MAX_REPLICAS} replicas at most, not {count}")
    return count


def drain_s(spec: Json) -> float:
    """How long an engine that is to stop may go on answering the requests it has, in seconds."""
    return float((spec.get("timeouts") or {}).get("drain_s", _DRAIN_S))


@dataclass(frozen=True, slots=True)
class EndpointFile:
    """One endpoint revision on disk: its spec and, when processes of ours serve it, the port of each replica."""

    key: Key
    spec: Json
    ports: tuple[int, ...] = ()

    @property
    def is_process(self) -> bool:
        return bool(self.spec.get("engine") == "llama.cpp")

    @property
    def programs(self) -> tuple[str, ...]:
        """The names of its replicas to the process manager, in the order of ``ports``."""
        return tuple(endpoint_program(self.key, replica) for replica in range(1, len(self.ports) + 1))

    def write(self, path: Path) -> None:
        content = {"format": FORMAT, "key": str(self.key), "spec": self.spec, "ports": list(self.ports)}
        write_json(path, content)

    @classmethod
    def read(cls, path: Path) -> EndpointFile | None:
        """None when there is none. Raises ``ValueError`` with the reason when it is damaged."""
        content = read_json(path)
        if content is None:
            return None
        try:
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']}, this llmctl knows {FORMAT}")
            ports = content["ports"] if "ports" in content else filter(None, [content["port"]])
            found = cls(Key.parse(content["key"]), dict(content["spec"]), tuple(int(port) for port in ports))
        except (KeyError, TypeError) as error:
            raise ValueError(f"it has another form: {error}") from None
        if f"{found.key}.json" != path.name:
            raise ValueError(f"it is of {found.key}")
        return found


def loading_file(layout: Layout, program: str) -> Path:
    """Where an engine keeps what llama.cpp says while it loads; it stays only when that kills the engine."""
    return layout.logs / f"{program}.loading"


def endpoint_program(key: Key, replica: int = 1) -> str:
    """The name of an endpoint revision's replica to the process manager, and of its log."""
    return f"endpoint.{key}" if replica == 1 else f"endpoint.{key}.{replica}"


def key_of_program(name: str) -> Key | None:
    """The endpoint revision that a program is a replica of, or None when it is none."""
    kind, dot, rest = name.partition(".")
    return Key.parse(rest.partition(".")[0]) if dot and kind == "endpoint" else None


def endpoint_files(layout: Layout) -> tuple[list[EndpointFile], dict[Key, str]]:
    """All endpoint files, and by key why others cannot be read. Raises ``OSError`` when the folder cannot be."""
    found, damaged = [], {}
    for path in sorted(layout.endpoints.glob("*.json")) if layout.endpoints.is_dir() else ():
        try:
            endpoint = EndpointFile.read(path)
        except (OSError, ValueError) as error:
            damaged[Key.parse(path.stem)] = f"{path}: {error}"
            continue
        if endpoint is not None:
            found.append(endpoint)
    return found, damaged
