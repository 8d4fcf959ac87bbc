"""Trace figures against hand counts, token-by-token prefix search, and published statistics."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexopt.traces.reading import read_trace
from hexopt.traces.sharing import InfiniteCache
from hexopt.traces.statistics import describe
from hexopt.traces.synthesis import FAMILIES, synthesize
from hexopt.traces.workflow import Prefix, Stage, TraceError, Workflow

SHARED = Path(os.environ.get("HEXOPT_SHARED", Path(__file__).parents[2] / "shared"))
HEXGEN_FLOW = SHARED / "traces" / "hexgen-flow"


def diamond(name: str = "w", arrival: float = 0.0) -> Workflow:
    root = Prefix("system", 10)
    return Workflow(
        name,
        (
            Stage("a", "plan", 30, 5, prefixes=(root, Prefix("h", 20, local=True)), output_segment="h"),
            Stage("b", "act", 45, 7, ("a",), (root, Prefix("h", 35, local=True)), tool_delay=2.0),
            Stage("c", "act", 12, 9, ("a",), (Prefix("system", 8),), tool_delay=3.0),
            Stage("d", "plan", 40, 1, ("b", "c"), tool_delay=0.5),
        ),
        arrival,
        tenant="t",
        family="f",
    )


def test_counts_by_hand() -> None:
    summary = describe([diamond("v", 4.0), diamond("w", 0.0), diamond("x", 8.0)])
    assert (summary.workflows, summary.calls) == (3, 12)
    assert (summary.prompt_tokens, summary.output_tokens) == (3 * 127, 3 * 22)
    assert (summary.span, summary.arrival_rate, summary.burstiness) == (8.0, 0.25, 0.0)
    assert (summary.depth.max, summary.width.max, summary.calls_per_workflow.mean) == (3, 2, 4)
    assert summary.critical_output_tokens.p50 == 5 + 9 + 1
    assert summary.tool_seconds.p50 == 3.5
    assert list(summary.kinds) == ["plan", "act"]
    assert summary.kinds["act"].prompt.mean == (45 + 12) / 2
    assert summary.kinds["act"].tool_delay.max == 3.0
    assert (summary.families, summary.tenants, summary.with_deadline) == ({"f": 3}, {"t": 3}, 0)
    # a: system of an earlier workflow; b: a's prompt and output; c: the shorter system; d: nothing.
    assert summary.prefix_hit_ratio == (0 + 10 + 10 + 3 * (35 + 8)) / (3 * 127)
    json.dumps(asdict(summary))


def test_all_at_once_has_no_rate() -> None:
    summary = describe([diamond("v"), diamond("w")])
    assert (summary.span, summary.arrival_rate, summary.burstiness) == (0.0, None, None)


def test_an_empty_trace_is_refused() -> None:
    with pytest.raises(TraceError, match="no workflows"):
        describe([])


segments = st.builds(Prefix, st.sampled_from("ab"), st.integers(1, 4), st.booleans())


@st.composite
def workflows(draw: st.DrawFn) -> list[Workflow]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        stages = []
        for place in range(draw(st.integers(1, 5))):
            prefixes = tuple(draw(st.lists(segments, max_size=4)))
            covered = sum(prefix.tokens for prefix in prefixes)
            quoted = covered > 0 and draw(st.booleans())
            private = 0 if quoted else draw(st.integers(0 if covered else 1, 3))
            stages.append(
                Stage(
                    str(place),
                    "call",
                    covered + private,
                    draw(st.integers(1, 4)),
                    prefixes=prefixes,
                    output_segment=draw(st.sampled_from("ab")) if quoted else None,
                )
            )
        found.append(Workflow(str(number), tuple(stages)))
    return found


def spelled(workflow: Workflow, stage: Stage) -> tuple[list[object], list[object]]:
    """Prompt and quoted output, token by token: what it is, and its place in a run of equal segments."""
    tokens: list[tuple[object, ...]] = []
    local = False
    pieces = [(p.segment, p.local, p.tokens) for p in stage.prefixes]
    if stage.output_segment is not None:
        pieces.append((stage.output_segment, True, stage.output_tokens))
    for segment, is_local, length in pieces:
        local = local or is_local
        name = (segment, workflow.id if local else None)
        for _ in range(length):
            after = tokens[-1][1] + 1 if tokens and tokens[-1][0] == name else 0
            tokens.append((name, after))
    covered = sum(prefix.tokens for prefix in stage.prefixes)
    return list(tokens[:covered]), list(tokens)


def common(one: list[object], other: list[object]) -> int:
    equal = [a == b for a, b in zip(one, other, strict=False)]
    return equal.index(False) if False in equal else len(equal)


@settings(deadline=None)
@given(workflows())
def test_infinite_cache_is_the_longest_common_token_prefix(trace: list[Workflow]) -> None:
    cache = InfiniteCache()
    seen: list[list[object]] = []
    for workflow in trace:
        expected = []
        for stage in workflow.stages:
            prompt, everything = spelled(workflow, stage)
            expected.append(max((common(prompt, other) for other in seen), default=0))
            seen.append(everything)
        assert cache.add(workflow) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_described(family: str) -> None:
    drawn = synthesize(family, 20, np.random.default_rng(0))
    summary = describe(iter(drawn))
    assert summary.workflows == sum(summary.families.values()) == 20
    assert summary.calls == sum(kind.calls for kind in summary.kinds.values())
    assert 0 <= summary.prefix_hit_ratio < 1


@pytest.mark.skipif(not HEXGEN_FLOW.is_dir(), reason="the HexGen-Flow traces are not in shared/traces")
def test_figures_of_a_published_trace() -> None:
    """Counted by an independent script on the HexGen-Flow simulator's ``input_file_formula1.json``."""
    summary = describe(read_trace(HEXGEN_FLOW / "input_file_formula1.json"))
    assert (summary.workflows, summary.calls) == (29, 504)
    assert (summary.prompt_tokens, summary.output_tokens) == (1_301_380, 49_943)
    depth, output = summary.depth, summary.critical_output_tokens
    assert (depth.min, round(depth.mean, 1), depth.p50, depth.max) == (10, 12.4, 11, 20)
    assert (output.min, round(output.mean, 1), output.p50, output.max) == (509, 1148.3, 934, 2362)
    revise = summary.kinds["revise"]
    assert (revise.calls, revise.prompt_tokens, revise.output_tokens) == (44, 353_378, 5_219)
    # The templates alone are 51.0 % of the prompt tokens; the first call of each is no hit.
    assert 0.48 < summary.prefix_hit_ratio < 0.51
