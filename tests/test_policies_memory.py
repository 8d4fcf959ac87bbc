"""Past-Future-style and FastSwitch-style: golden counts of the published simulator, limits that must coincide."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from bare_board import bare_board
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import RATE, random_experiment

from hexopt.policies.past_future import PastFuture
from hexopt.policies.registry import PolicyError, make_policy
from hexopt.simulation.fairness import redraw
from hexopt.simulation.state import INSTANCE, NONE, STAGE

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from past_future import LENGTHS, PUBLISHED, RULES, lengths, measure


def published_aggressive(calls: list[tuple[int, int]], overflows: bool) -> tuple[int, float]:
    """Steps and evictions (%) of the published simulator's aggressive rule, written anew.

    It counts a waiting call by its prompt, even if it was evicted with thousands of tokens, and admits it although the
    memory then overflows (``overflows``): it is evicted, and counted, a step later. No engine can.
    """
    waiting = [[prompt, output, 0] for prompt, output in calls][::-1]
    batch: list[list[int]] = []
    ended = evicted = steps = 0
    while True:
        for _ in range(10):
            steps += 1
            for call in batch:
                call[2] += 1
            ended += sum(done >= output for _, output, done in batch)
            batch = [call for call in batch if call[2] < call[1]]
            while sum(prompt + done for prompt, _, done in batch) > 120_000:
                evicted += 1
                waiting.append(batch.pop())
        admitted = 0
        while admitted < 32_768:
            if not waiting:
                return steps, 100 * evicted / ended
            prompt, _, done = waiting[-1]
            used = sum(p + d for p, _, d in batch)
            if used + prompt + (0 if overflows else done) > 0.99 * 120_000:
                break
            batch.append(waiting.pop())
            admitted += prompt


def test_the_published_counts_are_those_of_the_published_rule() -> None:
    steps, evicted = published_aggressive(lengths(0)["D2"], overflows=True)
    assert (steps, round(evicted, 2)) == (616_230, 97.72)


@pytest.mark.parametrize("name", ["D1", "D2", "D3"])
def test_aggressive_admission_evicts_as_the_published_rule_does_in_memory_that_does_not_overflow(name: str) -> None:
    calls = lengths(0)[name]
    steps, evicted = published_aggressive(calls, overflows=False)
    here = measure(calls, RULES["aggressive"])
    assert here.steps == pytest.approx(steps, rel=0.001)
    assert here.evicted == pytest.approx(evicted, abs=1.0)


@pytest.mark.parametrize(("rule", "name"), [(r, n) for r in ("aggressive", "conservative", "true") for n in LENGTHS])
def test_steps_and_memory_are_those_of_the_published_simulator(rule: str, name: str) -> None:
    steps, memory, _ = PUBLISHED[rule][name]
    here = measure(lengths(0)[name], RULES[rule])
    assert here.steps == pytest.approx(steps, rel=0.001)
    assert here.memory == pytest.approx(memory, abs=0.2)
    assert here.evicted == 0.0 or rule == "aggressive"


@pytest.mark.parametrize("name", LENGTHS)
def test_past_future_fills_and_evicts_as_published(name: str) -> None:
    """Means of five draws, of which the lengths' sum alone spreads by 1.2% each: the published run drew others."""
    steps, memory, evicted = PUBLISHED["past-future"][name]
    here = [measure(lengths(seed)[name], RULES["past-future"], seed) for seed in range(5)]
    assert np.mean([h.steps for h in here]) == pytest.approx(steps, rel=0.035)
    assert np.mean([h.memory for h in here]) == pytest.approx(memory, abs=1.0)
    assert np.mean([h.evicted for h in here]) == pytest.approx(evicted, abs=1.5)


@given(st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_no_rule_evicts_less_than_the_one_that_knows_the_lengths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    calls = [(int(rng.integers(10, 400)), int(rng.integers(1, 400))) for _ in range(60)]
    memory = {"capacity": 4000, "block": int(rng.choice([1, 16, 50]))}
    evicted = {rule: measure(calls, policy, seed, **memory).evicted for rule, policy in RULES.items()}
    assert evicted["true"] == 0.0 <= min(evicted.values())


def test_past_future_that_knows_the_lengths_is_the_true_rule() -> None:
    """Calls of one length, all of them remembered, and no reserve: what is sampled is what comes."""
    calls = [(100 + 7 * k % 50, 512) for k in range(60)]
    knowing = PastFuture(share=1.0, max_new=512)
    assert measure(calls, knowing, capacity=6000) == measure(calls, PastFuture(rule="true"), capacity=6000)


def redrawn(priorities: dict[str, float], tokens: dict[str, int], blocks: int) -> list[str]:
    """Who is resident of calls that wait, in blocks of one token, where the draws keep these priorities."""
    names = sorted(priorities)
    instance = np.zeros(1, dtype=INSTANCE)
    instance["block_size"], instance["blocks"], instance["max_seqs"] = 1, blocks, 8
    instance["redraw_keep"] = 1.0
    instance["running"] = len(names)
    stage = np.zeros(len(names), dtype=STAGE)
    running = np.arange(len(names), dtype=np.int32)[None].copy()
    stage["held"] = stage["prompt"] = [tokens[name] for name in names]
    stage["priority"] = [priorities[name] for name in names]
    stage["next_here"] = [*range(1, len(names)), NONE]
    instance["waiting_root"] = NONE
    kept = redraw(bare_board(instance=instance, stage=stage, running=running), 0)
    return [names[r] for r in running[0, :kept]]


def test_the_resident_set_of_the_worked_example() -> None:
    """Priorities are lower the higher the call ranks."""
    tokens = {"A": 400, "B": 300, "C": 500}
    assert redrawn({"A": -3.0, "B": -2.0, "C": -1.0}, tokens, 1000) == ["A", "B"]
    assert redrawn({"A": -1.0, "B": -2.0, "C": -3.0}, tokens, 1000) == ["C", "B"]


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 400)), min_size=1, max_size=8), st.integers(400, 1500))
def test_the_resident_set_is_the_longest_prefix_that_fits(calls: list[tuple[float, int]], blocks: int) -> None:
    names = "ABCDEFGH"[: len(calls)]
    order = sorted(range(len(calls)), key=lambda k: (calls[k][0], 0))
    expected, used = [], 0
    for k in order:
        used += calls[k][1]
        if used > blocks:
            break
        expected.append(names[k])
    priorities = {n: c[0] for n, c in zip(names, calls, strict=True)}
    if len(set(priorities.values())) == len(calls):
        assert redrawn(priorities, {n: c[1] for n, c in zip(names, calls, strict=True)}, blocks) == expected


def test_swaps_cost_less_the_more_of_fastswitch_is_on() -> None:
    """The same priorities are drawn; what the engine waits for copies falls with each mechanism."""
    experiment = random_experiment(5, count=12, kv_tokens=2400)
    picks, arrivals = experiment.sample(24, RATE, 5)

    def run(text: str):  # type: ignore[no-untyped-def]
        return experiment.run(make_policy(f"fastswitch-style:every=4,{text}"), picks, arrivals).instance

    plain = run("grouped=false,overlap=false,reuse=false")
    grouped = run("grouped=true,overlap=false,reuse=false")
    assert plain["swapped_in"].sum() > 0 and plain["swapped_out"].sum() == plain["swapped_in"].sum()
    assert grouped["stall_seconds"].sum() < 0.5 * plain["stall_seconds"].sum()
    reusing = run("grouped=true,overlap=false,reuse=true")
    assert reusing["swapped_out"].sum() < reusing["swapped_in"].sum()
    beside = run("grouped=true,overlap=true,reuse=true")
    assert beside["stall_seconds"].sum() == 0.0 and beside["copy_seconds"].sum() > 0.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("past-future-style:rule=past", "expected one of aggressive, conservative, past-future, true"),
        ("past-future-style:share=1.5", "share is 1.5, expected 0 to 1"),
        ("past-future-style:every=0", "every is 0, expected more than 0"),
        ("fastswitch-style:pattern=bursty", "pattern is 'bursty', expected random or markov"),
        ("fastswitch-style:stay=1", "stay is 1, expected 0 to less than 1"),
    ],
)
def test_parameters_out_of_range_are_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        make_policy(text)
