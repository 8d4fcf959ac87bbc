"""OpenTelemetry traces of agent runs (GenAI spans) as workflows: who waited for whom, and shared messages."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from hexopt.traces.readers.otel_spans import LlmCall, Message, Span, spans
from hexopt.traces.readers.source import Source
from hexopt.traces.workflow import Prefix, Stage, Workflow


def read(source: Source) -> Iterator[Workflow]:
    """Yield one workflow a trace id, from all files together, by the time of the first LLM call.

    Only LLM calls (operations chat, text_completion, generate_content) become stages. A parent span contains
    its children and is no dependency. What a call waited for is inferred, after the rule of
    kubernetes-sigs/inference-perf:

    1. it waited for every earlier call whose output is a message of its prompt, be it as the assistant's own
       words or as what a tool or a sub-agent gave back. Such a call also waited for the agents and tools
       called in between: for the last call inside every span beside it (under the same parent span) that
       started after the quoted calls ended and was over before it started;
    2. a call that quotes nobody waited for the call that ended last before it started, and for the calls that
       ran beside that one and had ended as well: inside the innermost span around it that holds any such
       call, else in the whole trace;
    3. a quoted call is left out where another quoted call quotes it in turn;
    4. the time between the latest end among these and the call's start is the stage's delay.

    Token counts are those recorded (``gen_ai.usage.*``), else estimated from the text and noted. Prompts
    share the messages on which they agree from the first on. A message's tokens are fixed where it first
    appears: the prompt's tokens that earlier messages leave, spread by length of text. Messages seen in
    several traces are global, outputs and what follows them are local.

    A stage's kind is the agent's name, else the service's where the file has several, else the operation.
    """
    traces: dict[str, list[Span]] = defaultdict(list)
    for span in spans(source):
        traces[span.trace].append(span)
    runs = [_Run(trace, held) for trace, held in traces.items() if any(span.call for span in held)]
    runs.sort(key=lambda run: run.calls[0].start)
    tree = _Messages()
    paths = [tree.paths(run) for run in runs]
    services = {span.call.service for run in runs for span in run.calls if span.call}
    for run, nodes in zip(runs, paths, strict=True):
        with source.at(f"trace {run.trace!r}"):
            yield _workflow(run, nodes, runs[0].calls[0].start, named_by_service=len(services) > 1)


class _Run:
    """The LLM calls of one trace, by start, and what each waited for."""

    def __init__(self, trace: str, held: list[Span]) -> None:
        self.trace = trace
        self.calls = sorted((span for span in held if span.call), key=lambda span: (span.start, span.end))
        self._starts = [span.start for span in self.calls]
        self._around = _enclosing(self.calls, held)

    def parents(self) -> list[list[int]]:
        """Return, for every call, the places of the calls it waited for."""
        causal = self._causal()
        temporal = self._temporal()
        quoted: list[int] = []  # every call's direct and indirect quotes, as a bit set
        parents: list[list[int]] = []
        for place, direct in enumerate(causal):
            indirect = 0
            for before in direct:
                indirect |= quoted[before]
            quoted.append(indirect | sum(1 << before for before in direct))
            kept = [before for before in direct if not indirect >> before & 1]
            parents.append(sorted({*kept, *self._called_between(place, kept)}) if kept else temporal[place])
        return parents

    def _causal(self) -> list[list[int]]:
        said: dict[str, list[int]] = defaultdict(list)
        found: list[list[int]] = []
        for place, span in enumerate(self.calls):
            assert span.call is not None
            quotes: set[int] = set()
            for message in span.call.messages:
                if message.role != "system":
                    ended = [p for p in said.get(message.text.strip(), ()) if self.calls[p].end <= span.start]
                    quotes.update(ended[-1:])
            found.append(sorted(quotes))
            if span.call.output:
                said[span.call.output].append(place)
        return found

    def _called_between(self, place: int, quoted: list[int]) -> list[int]:
        """Return the last call of every span beside the call at ``place`` that ran after ``quoted`` ended."""
        around = self._around[place]
        if not around:
            return []
        free = max(self.calls[before].end for before in quoted)
        last: dict[str, int] = {}
        for before in range(bisect_left(self._starts, free), place):
            inner = self._around[before]
            if self.calls[before].end <= self.calls[place].start and around[0] in inner[1:]:
                beside = inner[inner.index(around[0]) - 1]
                known = last.setdefault(beside, before)
                if self.calls[before].end > self.calls[known].end:
                    last[beside] = before
        return list(last.values())

    def _temporal(self) -> list[list[int]]:
        within: dict[str | None, list[tuple[float, int]]] = defaultdict(list)
        for place, span in enumerate(self.calls):
            for around in (span.id, *self._around[place], None):
                within[around].append((span.end, place))
        for ends in within.values():
            ends.sort()
        found: list[list[int]] = []
        for place, span in enumerate(self.calls):
            latest: list[int] = []
            for around in (*self._around[place], None):
                ends = within[around]
                latest = self._latest(ends[: bisect_right(ends, (span.start, len(self.calls)))], place)
                if latest:
                    break
            found.append(latest)
        return found

    def _latest(self, ended: list[tuple[float, int]], place: int) -> list[int]:
        """Return the call that ended last and those that overlapped it, of the calls before ``place``."""
        latest: list[int] = []
        for end, before in reversed(ended):
            if before >= place:
                continue
            if latest and end <= self.calls[latest[0]].start:
                break
            latest.append(before)
        return sorted(latest)


def _enclosing(calls: list[Span], held: list[Span]) -> list[list[str]]:
    """Return, for every call, the ids of the spans around it, innermost first."""
    above = {span.id: span.parent for span in held}
    found: list[list[str]] = []
    for span in calls:
        around: dict[str, None] = {}
        parent = span.parent
        while parent is not None and parent not in around:
            around[parent] = None
            parent = above.get(parent)
        found.append(list(around))
    return found


@dataclass(slots=True)
class _Node:
    """A message at its place in a prompt: its tokens, and which calls share it."""

    segment: int
    tokens: int
    trace: str
    shared: bool = False
    uses: int = 0
    next: dict[Message, _Node] = field(default_factory=dict)


class _Messages:
    """The messages of all prompts as a tree from the first message on."""

    def __init__(self) -> None:
        self._root = _Node(-1, 0, "")
        self._segments = 0

    def paths(self, run: _Run) -> list[_Path]:
        """Return the path of every call of ``run``; later calls may still mark its nodes as shared."""
        paths: list[_Path] = []
        outputs: dict[int, dict[str, _Node]] = defaultdict(dict)
        for span in run.calls:
            assert span.call is not None
            paths.append(self._path(run.trace, span.call, outputs))
        return paths

    def _path(self, trace: str, call: LlmCall, outputs: dict[int, dict[str, _Node]]) -> _Path:
        node, left = self._root, call.prompt_tokens
        nodes: list[tuple[_Node, int]] = []
        known = 0
        for message in call.messages:
            said = outputs[id(node)].get(message.text.strip()) if message.role == "assistant" else None
            following = said or node.next.get(message)
            if following is None or not left:
                break
            known += 1
            node = following
            node.shared |= node.trace != trace
            node.uses += 1
            nodes.append((node, min(left, node.tokens)))
            left -= min(left, node.tokens)
        fresh = call.messages[known:] if left else ()
        for message, tokens in zip(fresh, _spread(left, fresh), strict=True):
            following = node.next[message] = _Node(self._segments, tokens, trace, uses=1)
            node = following
            nodes.append((node, tokens))
            left -= tokens
        self._segments += 1
        output: _Node | None = None
        if not left and call.output and nodes and nodes[-1][0].tokens == nodes[-1][1]:
            output = outputs[id(node)][call.output] = _Node(self._segments, call.output_tokens, trace, uses=1)
            self._segments += 1
        return _Path(nodes, output)


@dataclass(frozen=True, slots=True)
class _Path:
    """The messages of one prompt with the tokens each takes, and the node of its output."""

    nodes: list[tuple[_Node, int]]
    output: _Node | None

    def prefixes(self) -> tuple[Prefix, ...]:
        """Return the segments up to the last message that some other prompt has too."""
        last = max((place for place, (node, _) in enumerate(self.nodes, 1) if node.uses > 1), default=0)
        if self.output_segment() is not None:
            last = len(self.nodes)
        runs: dict[str, list[int]] = {}
        for node, tokens in self.nodes[:last]:
            run = runs.setdefault(f"{'shared' if node.shared else 'messages'}-{node.segment}", [0, not node.shared])
            run[0] += tokens
        return tuple(Prefix(name, tokens, bool(local)) for name, (tokens, local) in runs.items() if tokens)

    def output_segment(self) -> str | None:
        """Return the segment under which later prompts quote the output, if any does."""
        return f"messages-{self.output.segment}" if self.output is not None and self.output.uses > 1 else None


def _spread(tokens: int, messages: tuple[Message, ...]) -> list[int]:
    """Return ``tokens`` split over ``messages`` in proportion to their text, in whole numbers."""
    total = sum(len(message.text) + 1 for message in messages)
    spread: list[int] = []
    characters = 0
    for message in messages:
        before = tokens * characters // total
        characters += len(message.text) + 1
        spread.append(tokens * characters // total - before)
    return spread


def _workflow(run: _Run, paths: list[_Path], origin: float, *, named_by_service: bool) -> Workflow:
    first = run.calls[0].start
    stages: list[Stage] = []
    family = ""
    for span, path, parents in zip(run.calls, paths, run.parents(), strict=True):
        call = span.call
        assert call is not None
        free = max((run.calls[parent].end for parent in parents), default=first)
        family = family or call.workflow
        stages.append(
            Stage(
                id=span.id,
                kind=call.agent or (call.service if named_by_service else "") or call.operation,
                prompt_tokens=call.prompt_tokens,
                output_tokens=call.output_tokens,
                parents=tuple(run.calls[parent].id for parent in parents),
                prefixes=path.prefixes(),
                output_segment=path.output_segment(),
                tool_delay=max(0.0, span.start - free),
            )
        )
    return Workflow(run.trace, tuple(stages), first - origin, family=family)
