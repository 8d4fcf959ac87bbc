"""Reads the LLM calls out of OpenTelemetry spans (GenAI semantic conventions)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hexopt.traces.readers.fields import MAX_TOKENS, mapping, sequence, shown
from hexopt.traces.readers.source import Source
from hexopt.traces.workflow import TraceError

_OPERATIONS = frozenset({"chat", "text_completion", "generate_content"})
_CHARACTERS_PER_TOKEN = 4
_INPUT_TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_OUTPUT_TOKENS = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_NANOSECONDS = re.compile(r"\d{1,20}")


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a prompt: who speaks, and the text (tool calls as JSON)."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Span:
    """Any span: ids and times (seconds since the epoch), with the call it records where it is an LLM call."""

    trace: str
    id: str
    parent: str | None
    start: float
    end: float
    call: LlmCall | None


@dataclass(frozen=True, slots=True)
class LlmCall:
    """What a span says of the LLM call it records."""

    operation: str
    agent: str
    workflow: str
    service: str
    prompt_tokens: int
    output_tokens: int
    messages: tuple[Message, ...]
    output: str


def spans(source: Source) -> Iterator[Span]:
    """Yield every span of OTLP JSON (``resourceSpans``) or of flat JSON (``spans``, or a list of spans)."""
    for where, document in source.documents():
        places: list[tuple[str, Any, Mapping[str, Any]]] = []
        with source.at(where):
            places = list(_places(document))
        for place, value, resource in places:
            with source.at(place if where == "file" else f"{where}, {place}"):
                yield _span(mapping(value, "the span"), resource, source)


def _places(document: Any) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    if isinstance(document, list):
        for index, span in enumerate(document):
            yield f"[{index}]", span, {}
        return
    record = mapping(document, "the document")
    if "span_id" in record:
        yield "span", record, {}
    elif "spans" in record:
        for index, span in enumerate(sequence(record["spans"], "spans")):
            yield f"spans[{index}]", span, {}
    elif "resourceSpans" in record:
        for i, group in enumerate(sequence(record["resourceSpans"], "resourceSpans")):
            where = f"resourceSpans[{i}]"
            held = mapping(group, where)
            resource = _attributes(mapping(held.get("resource") or {}, f"{where}.resource").get("attributes"))
            for j, scope in enumerate(sequence(held.get("scopeSpans") or [], f"{where}.scopeSpans")):
                inner = f"{where}.scopeSpans[{j}]"
                listed = sequence(mapping(scope, inner).get("spans") or [], f"{inner}.spans")
                for k, span in enumerate(listed):
                    yield f"{inner}.spans[{k}]", span, resource
    else:
        raise TraceError("has none of resourceSpans, spans and span_id")


def _span(record: Mapping[str, Any], resource: Mapping[str, Any], source: Source) -> Span:
    attributes = _attributes(record.get("attributes"))
    resource = _attributes(record.get("resource_attributes")) or resource
    start = _time(record, "startTimeUnixNano", "start_time")
    end = _time(record, "endTimeUnixNano", "end_time")
    if end < start:
        raise TraceError("ends before it starts")
    parent = record.get("parentSpanId") or record.get("parent_span_id") or None
    if parent is not None and not isinstance(parent, str):
        raise TraceError(f"parent span id is {shown(parent)}, expected a string")
    return Span(
        trace=_id(record, "traceId", "trace_id"),
        id=_id(record, "spanId", "span_id"),
        parent=parent,
        start=start,
        end=end,
        call=_call(attributes, resource, source),
    )


def _id(record: Mapping[str, Any], *names: str) -> str:
    for name in names:
        if name in record:
            value = record[name]
            if not isinstance(value, str) or not value:
                raise TraceError(f"{name} is {shown(value)}, expected a string that is not empty")
            return value
    raise TraceError(f"{names[-1]} is missing")


def _time(record: Mapping[str, Any], nanoseconds: str, iso: str) -> float:
    if nanoseconds in record:
        value = record[nanoseconds]
        if isinstance(value, int) and not isinstance(value, bool):
            value = f"{value}"
        if isinstance(value, str) and _NANOSECONDS.fullmatch(value):
            return int(value) / 1e9
        raise TraceError(f"{nanoseconds} is {shown(value)}, expected nanoseconds since 1970")
    value = record.get(iso)
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    raise TraceError(f"{iso} is {shown(value)}, expected a time like 2026-02-25T10:00:00.000000")


def _attributes(value: Any) -> Mapping[str, Any]:
    """Return attributes as a plain mapping, from one or from OTLP's list of keys and typed values."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    plain: dict[str, Any] = {}
    for index, entry in enumerate(sequence(value, "attributes")):
        record = mapping(entry, f"attributes[{index}]")
        plain[_id(record, "key")] = _plain(record.get("value"))
    return plain


def _plain(value: Any) -> Any:
    if not isinstance(value, dict) or len(value) != 1:
        return value
    ((kind, held),) = value.items()
    if kind == "arrayValue" and isinstance(held, dict):
        return [_plain(entry) for entry in sequence(held.get("values") or [], "arrayValue.values")]
    if kind == "kvlistValue" and isinstance(held, dict):
        return dict(_attributes(held.get("values") or []))
    if kind == "intValue" and isinstance(held, str) and re.fullmatch(r"-?\d{1,20}", held):
        return int(held)
    return held


def _call(attributes: Mapping[str, Any], resource: Mapping[str, Any], source: Source) -> LlmCall | None:
    operation = attributes.get("gen_ai.operation.name")
    if operation is None and any(name in attributes for name in (*_INPUT_TOKENS, "gen_ai.input.messages")):
        operation = "chat"
    if not isinstance(operation, str) or operation not in _OPERATIONS:
        return None
    messages = _prompt(attributes)
    output = _output(attributes)
    prompt_tokens = _usage(attributes, _INPUT_TOKENS)
    output_tokens = _usage(attributes, _OUTPUT_TOKENS)
    estimated = False
    if prompt_tokens is None and messages:
        prompt_tokens, estimated = estimate(sum(len(message.text) for message in messages)), True
    if output_tokens is None and output:
        output_tokens, estimated = estimate(len(output)), True
    if not prompt_tokens or not output_tokens:
        source.tally("skipped {n} LLM spans without token counts and text (failed, or not recorded)")
        return None
    if estimated:
        source.tally("estimated the token counts of {n} spans from their text, 4 characters a token")
    return LlmCall(
        operation=operation,
        agent=_name(attributes, "gen_ai.agent.name"),
        workflow=_name(attributes, "gen_ai.workflow.name"),
        service=_name(resource, "service.name"),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        messages=messages,
        output=output,
    )


def estimate(characters: int) -> int:
    """Return about how many tokens a text of so many characters has: one for four, at least 1."""
    return max(1, math.ceil(characters / _CHARACTERS_PER_TOKEN))


def _usage(attributes: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = attributes.get(name)
        if value is None:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_TOKENS:
            raise TraceError(f"{name} is {shown(value)}, expected a whole number >= 0")
        return value
    return None


def _name(attributes: Mapping[str, Any], key: str) -> str:
    value = attributes.get(key)
    return value if isinstance(value, str) else ""


def _prompt(attributes: Mapping[str, Any]) -> tuple[Message, ...]:
    instructions = _decoded(attributes.get("gen_ai.system_instructions"))
    head = (Message("system", _text(instructions)),) if instructions else ()
    for name in ("gen_ai.input.messages", "gen_ai.prompt"):
        if attributes.get(name):
            return head + _messages(_decoded(attributes[name]))
    return head + _numbered(attributes, "gen_ai.prompt")


def _output(attributes: Mapping[str, Any]) -> str:
    for name in ("gen_ai.output.messages", "gen_ai.output.text", "gen_ai.completion"):
        if attributes.get(name):
            messages = _messages(_decoded(attributes[name]))
            break
    else:
        messages = _numbered(attributes, "gen_ai.completion")
    return "\n".join(message.text for message in messages).strip()


def _numbered(attributes: Mapping[str, Any], stem: str) -> tuple[Message, ...]:
    """Return messages spread over attributes such as ``gen_ai.prompt.0.content``, an older convention."""
    messages: list[Message] = []
    while (content := attributes.get(f"{stem}.{len(messages)}.content")) is not None:
        role = _name(attributes, f"{stem}.{len(messages)}.role") or "user"
        messages.append(Message(role, _text(content)))
    return tuple(messages)


def _decoded(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _messages(value: Any) -> tuple[Message, ...]:
    if isinstance(value, list):
        return tuple(_message(entry) for entry in value)
    return (_message(value),)


def _message(value: Any) -> Message:
    if not isinstance(value, dict):
        return Message("user", _text(value))
    role = value.get("role")
    held = [value[name] for name in ("parts", "content", "tool_calls") if value.get(name)]
    return Message(role if isinstance(role, str) else "user", "\n".join(_text(entry) for entry in held))


def _text(value: Any) -> str:
    """Return the words of a message part; what is no text counts with its JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(_text(entry) for entry in value)
    if isinstance(value, dict):
        for name in ("content", "text", "response", "result"):
            if isinstance(value.get(name), str):
                return str(value[name])
    return json.dumps(value, sort_keys=True)
