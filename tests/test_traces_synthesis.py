"""Drawn workflows: shapes, published figures, determinism."""

from __future__ import annotations

import runpy
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexopt.traces.reading import read_trace
from hexopt.traces.samples import SAMPLES, sample_path
from hexopt.traces.statistics import describe
from hexopt.traces.synthesis import FAMILIES, synthesize
from hexopt.traces.workflow import Prefix, Stage, TraceError, Workflow
from hexopt.traces.writing import write_trace

SCRIPT = Path(__file__).parents[1] / "scripts" / "make-samples"


def drawn(family: str, n: int, seed: int = 0, **parameters: Any) -> list[Workflow]:
    return synthesize(family, n, np.random.default_rng(seed), **parameters)


@cache
def sql(financial_share: float) -> tuple[Workflow, ...]:
    return tuple(drawn("text-to-sql", 3000, financial_share=financial_share))


@cache
def coding(max_context: int) -> tuple[Workflow, ...]:
    return tuple(drawn("coding-agent", 2500, max_context=max_context, max_gap=80_000.0))


def of_kind(workflows: Sequence[Workflow], kind: str) -> list[Stage]:
    return [stage for workflow in workflows for stage in workflow.stages if stage.kind == kind]


def levels(workflow: Workflow) -> list[list[str]]:
    """Kinds of the stages by depth."""
    depth: dict[str, int] = {}
    found: list[list[str]] = []
    for stage in workflow.stages:
        depth[stage.id] = 1 + max((depth[parent] for parent in stage.parents), default=-1)
        if depth[stage.id] == len(found):
            found.append([])
        found[depth[stage.id]].append(stage.kind)
    return found


# --- all families


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(FAMILIES)), st.integers(0, 2**32), st.integers(0, 4))
def test_draws_are_sound_and_repeatable(family: str, seed: int, n: int) -> None:
    """``Stage`` and ``Workflow`` check lengths, parents and prefixes themselves."""
    workflows = drawn(family, n, seed)
    assert workflows == drawn(family, n, seed)
    assert workflows == drawn(family, n + 2, seed)[:n]
    assert [workflow.id for workflow in workflows] == [f"{family}-{k:06d}" for k in range(n)]
    for workflow in workflows:
        assert workflow.family in FAMILIES and workflow.arrival == 0
        if family != "mix":
            assert workflow.family == family
        parents = {parent for stage in workflow.stages for parent in stage.parents}
        last = [stage.id for stage in workflow.stages if stage.id not in parents]
        assert last == [workflow.stages[-1].id] or workflow.family == "tree-search"
        for stage in workflow.stages:
            local = [prefix.local for prefix in stage.prefixes]
            assert local == sorted(local)
            assert all(p.segment.startswith(f"{workflow.family}/") for p in stage.prefixes if not p.local)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_bytes(family: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_trace(drawn(family, 3), tmp_path / f"{name}.jsonl.gz", block_size=1024)
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()
    assert drawn(family, 3) != drawn(family, 3, seed=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_global_segments_have_one_length_at_most(family: str) -> None:
    lengths: dict[str, set[int]] = {}
    for workflow in drawn(family, 60):
        for stage in workflow.stages:
            for prefix in stage.prefixes:
                if not prefix.local and prefix.tokens < stage.prompt_tokens:
                    lengths.setdefault(prefix.segment, set()).add(prefix.tokens)
    assert all(len(found) == 1 for found in lengths.values())


def test_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(TraceError, match=r"family is 'sql', expected one of text-to-sql, tool-agent"):
        drawn("sql", 1)
    with pytest.raises(TraceError, match=r"chat has no parameter 'turns', expected one of turns_mean"):
        drawn("chat", 1, turns=3)
    with pytest.raises(TraceError, match="n is -1"):
        drawn("chat", -1)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "mix"])
def test_every_parameter_is_checked(family: str) -> None:
    for field in fields(FAMILIES[family].parameters):
        for wrong in (-1, float("nan"), "3", True):
            with pytest.raises(TraceError, match=rf"^{family}: {field.name} is .*expected"):
                drawn(family, 1, **{field.name: wrong})


def test_whole_numbers_have_to_be_whole() -> None:
    with pytest.raises(TraceError, match=r"tree-search: width is 2\.5, expected a whole number"):
        drawn("tree-search", 1, width=2.5)


# --- text-to-sql


def test_text_to_sql_follows_the_standard_workflow() -> None:
    templates = {
        "text-to-sql/information_retriever": 213,
        "text-to-sql/extract_keywords": 630,
        "text-to-sql/generate_candidate/1": 9158,
        "text-to-sql/generate_candidate/2": 5292,
        "text-to-sql/revise": 3059,
        "text-to-sql/unit_tester": 213,
        "text-to-sql/generate_unit_test": 436,
        "text-to-sql/evaluate": 261,
    }
    seen: set[str] = set()
    for workflow in sql(0.5):
        groups = levels(workflow)
        words = [group[0] for group in groups]
        assert all(len(set(group)) == 1 for group in groups)
        revisions = words.count("revise")
        keywords = ["extract_keywords"] * words.count("extract_keywords")
        tests = ["generate_unit_test"] if "generate_unit_test" in words else []
        evaluations = ["evaluate"] if tests else []
        assert len(keywords) <= 1 and revisions <= 10
        assert words == [
            "information_retriever",
            *keywords,
            *["information_retriever"] * 3,
            "generate_candidate",
            *["revise"] * revisions,
            "unit_tester",
            *tests,
            "unit_tester",
            *evaluations,
            "unit_tester",
        ]
        sizes = {group[0]: len(group) for group in groups if len(group) > 1}
        assert sizes.pop("generate_candidate") == 2
        assert set(sizes) <= {"evaluate"} and all(2 <= size <= 11 for size in sizes.values())
        before: tuple[str, ...] = ()
        for group in groups:
            here = [s for s in workflow.stages if s.kind == group[0] and s.parents == before]
            assert len(here) == len(group)
            before = tuple(stage.id for stage in here)
        for stage in workflow.stages:
            (prefix,) = stage.prefixes
            assert prefix == Prefix(prefix.segment, min(templates[prefix.segment], stage.prompt_tokens))
            seen.add(prefix.segment)
    assert seen == set(templates)


@pytest.mark.parametrize(
    ("share", "calls", "prompts", "outputs", "critical", "templates"),
    [(1.0, 15.9, 31_917.5, 1_598.9, 1_041.0, 0.635), (0.0, 17.4, 44_875.2, 1_722.2, 1_148.3, 0.510)],
)
def test_text_to_sql_has_the_published_totals(
    share: float, calls: float, prompts: float, outputs: float, critical: float, templates: float
) -> None:
    """Means a workflow of the databases financial and formula1, and the templates' share of the prompts."""
    summary = describe(sql(share))
    assert summary.calls / 3000 == pytest.approx(calls, rel=0.03)
    assert summary.prompt_tokens / 3000 == pytest.approx(prompts, rel=0.03)
    assert summary.output_tokens / 3000 == pytest.approx(outputs, rel=0.05)
    assert summary.critical_output_tokens.mean == pytest.approx(critical, rel=0.06)
    assert summary.prefix_hit_ratio == pytest.approx(templates, abs=0.015)


@pytest.mark.parametrize(
    ("share", "kind", "prompt", "prompt_p95", "output", "output_p50"),
    [
        (1.0, "information_retriever", 306.2, 312, 7.5, 5),
        (1.0, "extract_keywords", 662.0, 693, 40.5, 39),
        (1.0, "generate_candidate", 10_043.1, 12_144, 586.0, 548),
        (1.0, "revise", 5_969.5, 6_757, 187.6, 82),
        (1.0, "unit_tester", 274.7, 278, 4.7, 4),
        (1.0, "generate_unit_test", 1_010.6, 1_375, 91.9, 91),
        (1.0, "evaluate", 890.2, 1_206, 28.6, 22),
        (0.0, "extract_keywords", 673.8, 721, 45.7, 37),
        (0.0, "generate_candidate", 11_912.4, 13_970, 601.3, 555),
        (0.0, "revise", 8_031.3, 8_862, 118.6, 124),
        (0.0, "generate_unit_test", 1_094.6, 1_456, 94.5, 85),
        (0.0, "evaluate", 1_030.5, 1_415, 32.1, 22),
    ],
)
def test_text_to_sql_has_the_published_lengths(
    share: float, kind: str, prompt: float, prompt_p95: float, output: float, output_p50: float
) -> None:
    """By step and database; evaluations and unit tests are few in the traces, so their tails are loose."""
    found = describe(sql(share)).kinds[kind]
    assert found.prompt.mean == pytest.approx(prompt, rel=0.05)
    assert found.prompt.p95 == pytest.approx(prompt_p95, rel=0.13)
    assert found.output.mean == pytest.approx(output, rel=0.12)
    assert found.output.p50 == pytest.approx(output_p50, rel=0.2, abs=1)


def test_text_to_sql_revisions() -> None:
    def counts(**parameters: float) -> list[int]:
        workflows = drawn("text-to-sql", 2000, **parameters)
        return [sum(stage.kind == "revise" for stage in workflow.stages) for workflow in workflows]

    assert np.mean(counts(financial_share=1.0)) == pytest.approx(69 / 94, abs=0.1)
    assert np.mean(counts(financial_share=0.0)) == pytest.approx(44 / 29, abs=0.2)
    assert np.mean(np.equal(counts(financial_share=1.0), 0)) == pytest.approx(69 / 94, abs=0.03)
    uniform = Counter(counts(uniform_revisions=1.0))
    assert sorted(uniform) == list(range(11))
    assert all(abs(times - 2000 / 11) < 4 * np.sqrt(2000 / 11) for times in uniform.values())


# --- agents with a history


def chain_of(workflow: Workflow) -> None:
    """Assert a chain in which every prompt begins with the one before, then its output."""
    for before, after in pairwise(workflow.stages):
        assert after.parents == (before.id,)
        assert after.prompt_tokens > before.prompt_tokens + before.output_tokens
    summary = describe([workflow])
    kept = sum(stage.prompt_tokens + stage.output_tokens for stage in workflow.stages[:-1])
    assert summary.prefix_hit_ratio == pytest.approx(kept / summary.prompt_tokens)


@pytest.mark.parametrize("family", ["tool-agent", "chat"])
def test_agents_and_chats_are_chains_that_find_their_history(family: str) -> None:
    for workflow in drawn(family, 200):
        chain_of(workflow)
        assert workflow.stages[0].tool_delay == 0
        assert all(stage.prompt_tokens + stage.output_tokens <= 32_768 for stage in workflow.stages)


def test_tool_agent_has_the_published_means() -> None:
    workflows = drawn("tool-agent", 4000)
    summary = describe(workflows)
    added = sum(w.stages[-1].prompt_tokens - sum(s.output_tokens for s in w.stages[:-1]) for w in workflows)
    assert summary.calls / 4000 == pytest.approx(10.75, rel=0.03)
    assert summary.calls_per_workflow.max <= 70
    assert added / summary.calls == pytest.approx(735, rel=0.04)
    assert summary.output_tokens / summary.calls == pytest.approx(34, rel=0.03)
    delays = [stage.tool_delay for workflow in workflows for stage in workflow.stages[1:]]
    assert np.mean(delays) == pytest.approx(1.923, rel=0.04)
    assert np.std(delays) == pytest.approx(2.133, rel=0.1)


def test_tool_agents_of_one_toolset_share_it() -> None:
    summary = describe(drawn("tool-agent", 400, calls_median=1, calls_sigma=0))
    assert summary.prefix_hit_ratio > 0.85


def test_chat_has_the_published_means() -> None:
    workflows = drawn("chat", 4000)
    summary = describe(workflows)
    added = sum(w.stages[-1].prompt_tokens - sum(s.output_tokens for s in w.stages[:-1]) for w in workflows)
    assert summary.calls / 4000 == pytest.approx(6.66, rel=0.04)
    assert added / summary.calls == pytest.approx(256, rel=0.08)
    assert summary.output_tokens / summary.calls == pytest.approx(277, rel=0.03)
    shared = drawn("chat", 2, system_tokens=100)
    assert shared[1].stages[0].prefixes[0] == Prefix("chat/system", 100)


def test_coding_agent_has_the_published_quantiles() -> None:
    """All within 15 % of the figures of 710 recorded sessions, most within 10 %."""
    workflows = coding(1_000_000)
    prompts, outputs, gaps, new = [], [], [], []
    for workflow in workflows:
        before: dict[str, int] = {}
        for stage in workflow.stages:
            prompts.append(stage.prompt_tokens)
            outputs.append(stage.output_tokens)
            gaps += [stage.tool_delay] if stage.parents else []
            system, history = stage.prefixes
            first = 0 if len(before) == 0 else system.tokens
            new.append(stage.prompt_tokens - before.get(history.segment, first))
            before[history.segment] = stage.prompt_tokens
    assert np.quantile(prompts, (0.5, 0.9)) == pytest.approx([103_656, 233_633], rel=0.1)
    assert np.quantile(new, (0.5, 0.9)) == pytest.approx([728, 4_894], rel=0.12)
    assert np.quantile(outputs, (0.5, 0.9, 0.99)) == pytest.approx([216, 898, 3_685], rel=0.05)
    assert 1 - sum(new) / sum(prompts) == pytest.approx(0.963, abs=0.006)
    assert np.quantile(gaps, (0.5, 0.9)) == pytest.approx([10, 162], rel=0.15)
    assert np.mean(np.greater(gaps, 300)) == pytest.approx(0.068, abs=0.008)
    calls = [sum(stage.kind == "main" for stage in workflow.stages) for workflow in workflows]
    assert np.median(calls) == pytest.approx(45, rel=0.1)
    assert max(calls) <= 561
    forked = [w for w in workflows if any(s.kind == "subagent:explore" for s in w.stages)]
    assert len(forked) / len(workflows) == pytest.approx(17 / 710, abs=0.01)


@pytest.mark.parametrize("max_context", [32_768, 131_072])
def test_coding_agent_stays_in_its_context(max_context: int) -> None:
    workflows = drawn("coding-agent", 300, max_context=max_context, subagent_share=0.5)
    ends = [stage.prompt_tokens + stage.output_tokens for workflow in workflows for stage in workflow.stages]
    assert 0.9 * max_context < max(ends) <= max_context


def test_coding_agent_forks_and_joins() -> None:
    """Sub-agents start together after one main call, are chains, and the next main call waits for all."""
    bursts: Counter[int] = Counter()
    for workflow in drawn("coding-agent", 200, subagent_share=1.0, calls_median=20):
        kinds = {stage.id: stage.kind for stage in workflow.stages}
        children: Counter[str] = Counter(parent for stage in workflow.stages for parent in stage.parents)
        main = [stage for stage in workflow.stages if stage.kind == "main"]
        assert workflow.stages[-1] == main[-1]
        for before, after in pairwise(main):
            if after.parents == (before.id,):
                assert children[before.id] == 1
                continue
            assert {kinds[parent] for parent in after.parents} == {"subagent:explore"}
            assert len(after.parents) == children[before.id]
            assert after.tool_delay == 0
            bursts[len(after.parents)] += 1
        for stage in workflow.stages:
            if stage.kind != "main":
                assert len(stage.parents) == 1 and children[stage.id] == 1
    total = sum(bursts.values())
    assert sorted(bursts) == [1, 2, 3] and total > 300
    assert bursts[1] / total == pytest.approx(0.58, abs=0.08)


# --- trees


@pytest.mark.parametrize("width", [1, 4])
def test_tree_search_goes_in_rounds(width: int) -> None:
    for workflow in drawn("tree-search", 60, width=width, max_depth=4):
        parents: tuple[str, ...] = ()
        for start in range(0, len(workflow.stages), 2 * width):
            samples = workflow.stages[start : start + width]
            ratings = workflow.stages[start + width : start + 2 * width]
            assert all(stage.kind == "expand" and stage.parents == parents for stage in samples)
            assert len({stage.prefixes for stage in samples}) == 1
            assert len(samples[0].prefixes) <= 2 + 3
            for sample, rating in zip(samples, ratings, strict=True):
                assert rating.kind == "value" and rating.parents == (sample.id,)
                assert rating.prefixes[1:-1] == sample.prefixes[1:]
                step = rating.prefixes[-1]
                assert step.segment == sample.output_segment and step.tokens > sample.output_tokens
            parents = tuple(stage.id for stage in ratings)


def test_tree_search_has_the_published_means() -> None:
    summary = describe(drawn("tree-search", 500, seed=3))
    assert summary.calls / 500 == pytest.approx(159.7, rel=0.06)
    assert summary.prompt_tokens / summary.calls == pytest.approx(467, rel=0.04)
    assert summary.output_tokens / summary.calls == pytest.approx(73, rel=0.02)
    assert summary.prefix_hit_ratio > 0.8
    assert summary.width.p50 == 5


def test_map_reduce_covers_the_document_and_reduces_to_one() -> None:
    for workflow in drawn("map-reduce", 100, document_sigma=1.5, fan_in=3, instruction_tokens=10):
        maps = [stage for stage in workflow.stages if stage.kind == "map"]
        assert all(stage.parents == () and stage.prompt_tokens <= 1034 for stage in maps)
        assert all(stage.prompt_tokens == 1034 for stage in maps[:-1])
        outputs = {stage.id: stage.output_tokens for stage in workflow.stages}
        taken: Counter[str] = Counter()
        for stage in workflow.stages[len(maps) :]:
            assert stage.kind == "reduce" and 1 <= len(stage.parents) <= 3
            assert stage.prompt_tokens == 10 + sum(outputs[parent] for parent in stage.parents)
            taken.update(stage.parents)
        assert taken == Counter(stage.id for stage in workflow.stages[:-1])


def test_map_reduce_has_the_published_sizes() -> None:
    summary = describe(drawn("map-reduce", 1000))
    documents = summary.kinds["map"].prompt_tokens - 64 * summary.kinds["map"].calls
    assert documents / 1000 > 20_000
    assert summary.kinds["map"].prompt.p50 == 1024 + 64
    assert 25 <= summary.kinds["map"].output.p50 == pytest.approx(50, abs=1)
    assert summary.depth.p50 == 2


# --- mixtures


def test_mix_keeps_its_weights() -> None:
    families = Counter(w.family for w in drawn("mix", 2000, weights={"chat": 3, "text-to-sql": 1, "map-reduce": 0}))
    assert set(families) == {"chat", "text-to-sql"}
    assert families["chat"] / 2000 == pytest.approx(0.75, abs=0.04)
    assert set(Counter(w.family for w in drawn("mix", 200))) == set(FAMILIES) - {"mix"}


def test_mix_hands_parameters_to_its_parts() -> None:
    workflows = drawn("mix", 20, weights={"chat": 1}, parameters={"chat": {"max_turns": 1}})
    assert all(len(workflow.stages) == 1 for workflow in workflows)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"weights": {"sql": 1}}, "'sql' is no family to mix, expected one of text-to-sql"),
        ({"weights": {"mix": 1}}, "'mix' is no family to mix"),
        ({"weights": {"chat": -1}}, r"weights\['chat'\] is -1, expected a number >= 0"),
        ({"weights": {"chat": 0}}, "all 0"),
        ({"weights": {}}, "all 0"),
        ({"weights": 3}, "weights is 3, expected a mapping"),
        ({"parameters": {"chat": {"turns": 1}}}, "chat has no parameter 'turns'"),
        ({"parts": ()}, "mix has no parameter 'parts', expected one of weights, parameters$"),
    ],
)
def test_mix_refuses_what_it_cannot_mix(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        drawn("mix", 1, **parameters)


# --- the samples that come along


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_what_the_script_draws(name: str) -> None:
    script = runpy.run_path(str(SCRIPT))
    workflows = read_trace(sample_path(name))
    assert workflows == script[name.replace("-", "_")]()
    assert sample_path(name).stat().st_size < 400_000
    assert {workflow.family for workflow in workflows} == {name}
    summary = describe(workflows)
    assert summary.arrival_rate == pytest.approx({"text-to-sql": 0.25, "coding-agent": 0.05}[name], rel=0.15)


def test_the_sample_of_text_to_sql_revises_twice_in_the_mean() -> None:
    summary = describe(read_trace(sample_path("text-to-sql")))
    assert summary.kinds["revise"].calls / summary.workflows == pytest.approx(2, abs=0.25)


def test_unknown_samples_are_refused() -> None:
    with pytest.raises(TraceError, match="sample is 'x', expected one of text-to-sql, coding-agent"):
        sample_path("x")
