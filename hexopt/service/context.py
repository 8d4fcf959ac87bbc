"""The workflow that an OpenAI call belongs to, as its headers and body say.

HexOpt's own headers come first; then the session headers that coding agents and other gateways' clients send anyway,
in the order of ``_IDENTITIES``. Their meaning is that of their projects: Claude Code's "LLM gateway" page, NVIDIA
Dynamo's "Session IDs" and "Agent hints", llm-d router's ``agent-identity`` plugin, AIBrix' session affinity, Shepherd
Model Gateway's routing key, ThunderAgent's ``program_id``. ``docs/gateway.md`` lists them all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ID_LENGTH = 256
"""Characters that an id may have."""
MAX_PARENTS = 256
MAX_SECONDS = 1e9
MAX_WEIGHT = 1e6
MAX_TOKENS = 10_000_000
_PRIORITIES = 2**31

_NUMBER = re.compile(r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,4})?")
_WHOLE = re.compile(r"[0-9]{1,12}")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class ContextError(ValueError):
    """A header or field of a call that says something impossible; the message names it and what was expected."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """What one call says of its place in a workflow.

    Parameters
    ----------
    workflow
        The client's id of the workflow; ``None`` makes the call a workflow of its own.
    stage
        The client's id of this call, so that later ones can name it as a parent.
    kind
        What the call does (``revise``); predictors learn per kind.
    parents
        Ids of the stages whose answers it needed.
    deadline
        Seconds from the workflow's first call by which all of it should have ended.
    weight
        Importance, > 0.
    tenant
        Who asks.
    expected_output
        Tokens that the client expects.
    prefix
        Calls with the same hint share a prompt prefix.
    final
        Whether nothing of the workflow comes after this call.
    priority
        The client's own vLLM ``priority``; lower is earlier.
    route_only
        Whether the client wants the decision and not the answer.
    """

    workflow: str | None = None
    stage: str | None = None
    kind: str = "call"
    parents: tuple[str, ...] = ()
    deadline: float | None = None
    weight: float = 1.0
    tenant: str = ""
    expected_output: int | None = None
    prefix: str | None = None
    final: bool = False
    priority: int | None = None
    route_only: bool = False


@dataclass(frozen=True, slots=True)
class _Identity:
    """How one kind of client names its sessions: the first header sent of each row counts.

    A session under another one is part of that one's workflow, and its own calls share a growing prompt.
    """

    workflow: tuple[bytes, ...]
    chain: tuple[bytes, ...]


_IDENTITIES = (
    _Identity((b"x-dynamo-parent-session-id", b"x-dynamo-session-id"), (b"x-dynamo-session-id",)),
    _Identity((b"x-claude-code-session-id",), (b"x-claude-code-agent-id", b"x-claude-code-session-id")),
    _Identity(
        (b"session-id", b"session_id", b"x-codex-parent-thread-id", b"thread-id"),
        (b"thread-id", b"session-id", b"session_id"),
    ),
    _Identity(
        (b"x-parent-session-id", b"x-session-id", b"x-session-affinity"), (b"x-session-id", b"x-session-affinity")
    ),
    _Identity((b"x-smg-routing-key",), (b"x-smg-routing-key",)),
    _Identity((b"x-aibrix-session-key",), (b"x-aibrix-session-key",)),
)
_TENANTS = (b"x-hexopt-tenant", b"x-llm-d-inference-fairness-id", b"x-gateway-inference-fairness-id")
_TTFT, _TPOT = b"x-llm-d-slo-ttft-ms", b"x-llm-d-slo-tpot-ms"
_OWN = tuple(
    f"x-hexopt-{name}".encode()
    for name in (
        "workflow", "stage", "kind", "parents", "deadline", "weight", "tenant", "output-tokens", "prefix", "final",
        "route-only",
    )
)  # fmt: skip
_PARENTS = b"x-hexopt-parents"
HEADERS = frozenset(
    {
        *_OWN,
        *_TENANTS,
        *(name for identity in _IDENTITIES for name in (*identity.workflow, *identity.chain)),
        b"x-dynamo-session-final",
        _TTFT,
        _TPOT,
    }
)
"""Names of all headers that are understood."""
FIELDS = ("program_id", "prompt_cache_key", "nvext", "priority")
"""Names of the body's fields that are understood."""

_PLAIN = CallContext()


def read_context(headers: Sequence[tuple[bytes, bytes]], body: Mapping[str, Any]) -> CallContext:
    """Return what a call says of its workflow.

    Parameters
    ----------
    headers
        As ASGI gives them: names in lower case. An empty value counts as not sent.
    body
        The call's JSON object. A null counts as not sent.

    Raises
    ------
    ContextError
        Naming the header or field, what it is and what was expected.
    """
    sent: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in HEADERS and (value := value.strip()):
            before = sent.setdefault(name, value)
            if before is not value and before != value:
                if name != _PARENTS:
                    raise ContextError(f"{name.decode()} was sent twice with different values, expected once")
                sent[name] = before + b"," + value
    fields = [body.get(name) for name in FIELDS]
    if not sent and fields == [None, None, None, None]:
        return _PLAIN
    return _read(sent, *fields)


def _read(sent: dict[bytes, bytes], program: Any, cache_key: Any, nvext: Any, priority: Any) -> CallContext:
    hints = _hints(nvext)
    workflow, chain = _identity(sent, program)
    stage = _header_id(sent, b"x-hexopt-stage")
    if stage is not None and "," in stage:
        raise ContextError(f"x-hexopt-stage is {_shown(stage)}, expected no comma (it parts the ids of parents)")
    parents = _parents(sent, stage)
    if parents and workflow is None:
        raise ContextError("x-hexopt-parents was sent without a workflow, expected x-hexopt-workflow beside it")
    output = _whole(sent, b"x-hexopt-output-tokens")
    if output is None:
        output = _integer("nvext.agent_hints.osl", hints.get("osl"), 1, MAX_TOKENS)
    deadline = _number(sent, b"x-hexopt-deadline", 0.0, MAX_SECONDS, "seconds > 0")
    if deadline is None:
        deadline = _call_deadline(sent, workflow, output)
    weight = _number(sent, b"x-hexopt-weight", 1 / MAX_WEIGHT, MAX_WEIGHT, "a number > 0")
    prefix = _header_id(sent, b"x-hexopt-prefix") or _text("prompt_cache_key", cache_key) or chain
    final = _flag(sent, b"x-hexopt-final")
    if final is None:
        # A session under another one may end long before their workflow does.
        ends = _flag(sent, b"x-dynamo-session-final")
        final = bool(ends) and b"x-dynamo-parent-session-id" not in sent
    rank = _integer("priority", priority, -_PRIORITIES, _PRIORITIES - 1)
    if rank is None:
        hinted = _integer("nvext.agent_hints.priority", hints.get("priority"), 1 - _PRIORITIES, _PRIORITIES - 1)
        # Dynamo's grow with importance, vLLM's fall.
        rank = None if hinted is None else -hinted
    return CallContext(
        workflow=workflow,
        stage=stage,
        kind=_header_id(sent, b"x-hexopt-kind") or "call",
        parents=parents,
        deadline=deadline,
        weight=1.0 if weight is None else weight,
        tenant=_first_id(sent, _TENANTS) or "",
        expected_output=output,
        prefix=prefix,
        final=final,
        priority=rank,
        route_only=bool(_flag(sent, b"x-hexopt-route-only")),
    )


def _identity(sent: dict[bytes, bytes], program: Any) -> tuple[str | None, str | None]:
    """The workflow, and the chain of calls with a growing prompt that this one belongs to."""
    own = _header_id(sent, b"x-hexopt-workflow")
    for identity in _IDENTITIES:
        theirs = _first_id(sent, identity.workflow)
        if theirs is not None:
            return own or theirs, _first_id(sent, identity.chain)
    of_body = _text("program_id", program)
    return own or of_body, of_body


def _call_deadline(sent: dict[bytes, bytes], workflow: str | None, output: int | None) -> float | None:
    """The end of a call that states how soon its first token and every further one should come (llm-d)."""
    first = _number(sent, _TTFT, 0.0, MAX_SECONDS, "milliseconds > 0")
    later = _number(sent, _TPOT, 0.0, MAX_SECONDS, "milliseconds > 0")
    if workflow is not None or first is None or later is None or output is None:
        return None
    return (first + later * (output - 1)) / 1000.0


def _parents(sent: dict[bytes, bytes], stage: str | None) -> tuple[str, ...]:
    raw = sent.get(_PARENTS)
    if raw is None:
        return ()
    parts = raw.split(b",", MAX_PARENTS + 1)
    if len(parts) > MAX_PARENTS:
        raise ContextError(f"x-hexopt-parents names more than {MAX_PARENTS} stages, expected at most {MAX_PARENTS}")
    ids = tuple(dict.fromkeys(_id("x-hexopt-parents", part.strip()) for part in parts))
    if stage in ids:
        raise ContextError(f"x-hexopt-parents names {_shown(stage)}, which is this call's own x-hexopt-stage")
    return ids


def _hints(nvext: Any) -> Mapping[str, Any]:
    return _object("nvext.agent_hints", _object("nvext", nvext).get("agent_hints"))


def _object(name: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ContextError(f"{name} is {_shown(value)}, expected an object")
    return value


def _first_id(sent: dict[bytes, bytes], names: tuple[bytes, ...]) -> str | None:
    for name in names:
        if name in sent:
            return _header_id(sent, name)
    return None


def _header_id(sent: dict[bytes, bytes], name: bytes) -> str | None:
    raw = sent.get(name)
    return None if raw is None else _id(name.decode(), raw)


def _id(name: str, raw: bytes) -> str:
    if not raw:
        raise ContextError(f"{name} holds an empty id, expected ids with commas between them")
    try:
        return _checked(name, raw.decode())
    except UnicodeDecodeError:
        raise ContextError(f"{name} is {_shown(raw)}, expected UTF-8") from None


def _text(name: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ContextError(f"{name} is {_shown(value)}, expected a string")
    return _checked(name, value)


def _checked(name: str, text: str) -> str:
    if len(text) > ID_LENGTH:
        raise ContextError(f"{name} has {len(text)} characters, expected at most {ID_LENGTH}")
    if not text.isprintable():
        raise ContextError(f"{name} is {_shown(text)}, expected printable characters")
    return text


def _number(sent: dict[bytes, bytes], name: bytes, low: float, high: float, expected: str) -> float | None:
    """A header's number in (0, high], at least ``low``."""
    raw = sent.get(name)
    if raw is None:
        return None
    text = raw.decode("latin-1")
    value = float(text) if len(text) <= ID_LENGTH and _NUMBER.fullmatch(text) else -1.0
    if not (value > 0 and low <= value <= high):
        raise ContextError(f"{name.decode()} is {_shown(text)}, expected {expected} (at most {high:g})")
    return value


def _whole(sent: dict[bytes, bytes], name: bytes) -> int | None:
    raw = sent.get(name)
    if raw is None:
        return None
    text = raw.decode("latin-1")
    value = int(text) if _WHOLE.fullmatch(text) else 0
    if not 1 <= value <= MAX_TOKENS:
        raise ContextError(f"{name.decode()} is {_shown(text)}, expected a whole number of 1 to {MAX_TOKENS}")
    return value


def _integer(name: str, value: Any, low: int, high: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ContextError(f"{name} is {_shown(value)}, expected a whole number of {low} to {high}")
    return value


def _flag(sent: dict[bytes, bytes], name: bytes) -> bool | None:
    raw = sent.get(name)
    if raw is None:
        return None
    text = raw.decode("latin-1")
    if (flag := _FLAGS.get(text.lower())) is None:
        raise ContextError(f"{name.decode()} is {_shown(text)}, expected true, false, 1 or 0")
    return flag


def _shown(value: Any) -> str:
    """A value as errors show it: safe to print, and short whatever a client sends."""
    if isinstance(value, str | bytes):
        text = ascii(value[:41])
        return text if len(value) <= 41 else f"{value[:38]!a} and {len(value) - 38} more"
    if isinstance(value, bool) or value is None:
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number out of range" if isinstance(value, int) and value.bit_length() > 128 else repr(value)
    return "an object" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else type(value).__name__
