"""The judge of pairs against a simulation of events in plain Python; what holds for every plan."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_problems import random_pairs, random_plan, simulated

from hexopt.solvers.pairs import PairPlan, PairProblem, greedy_pairs, judge_pairs, solve_pairs
from hexopt.solvers.problem import ProblemError

CASE = given(st.integers(0, 2**31), st.integers(1, 14), st.integers(1, 3), st.integers(1, 3), st.booleans())


def drawn(seed, n, p, d, whole):
    rng = np.random.default_rng(seed)
    problem = random_pairs(rng, n, p, d, whole)
    return rng, problem, random_plan(rng, problem)


@CASE
@settings(max_examples=400, deadline=None)
def test_is_the_simulation(seed, n, p, d, whole):
    _, problem, plan = drawn(seed, n, p, d, whole)
    found = judge_pairs(problem, plan)
    objective, terms, done = simulated(problem, plan)
    assert found.terms == pytest.approx(terms, rel=1e-9, abs=1e-9)
    assert found.objective == pytest.approx(objective, rel=1e-9, abs=1e-9)
    assert found.completion == pytest.approx([done[r] for r in range(n)], rel=1e-9)


@CASE
@settings(max_examples=150, deadline=None)
def test_prefills_are_serial_and_decodes_keep_their_memory_and_their_queue(seed, n, p, d, whole):
    _, q, plan = drawn(seed, n, p, d, whole)
    found = judge_pairs(q, plan)
    rank = np.argsort(plan.order)
    for i in range(p):
        mine = [r for r in plan.order if plan.prefill[r] == i]
        moment = q.prefill_free[i]
        for r in mine:
            assert found.prefill_start[r] == max(moment, q.release[r])
            moment = found.prefill_start[r] + q.prefill[r, i]
    for j in range(d):
        mine = np.flatnonzero(plan.decode == j)
        running = q.busy_instance == j
        for r in mine:
            t = found.decode_start[r]
            there = mine[(found.decode_start[mine] <= t) & (t < found.completion[mine])]
            old = running & (q.busy_until > t)
            assert len(there) + old.sum() <= q.seats[j]
            assert q.kv[there].sum() + q.busy_kv[old].sum() <= q.kv_capacity[j]
            assert t >= found.kv_ready[r]
            passed = mine[(rank[mine] < rank[r]) & (found.kv_ready[mine] <= t)]
            assert (found.decode_start[passed] <= t).all()


@CASE
@settings(max_examples=100, deadline=None)
def test_names_of_calls_do_not_matter(seed, n, p, d, whole):
    rng, problem, plan = drawn(seed, n, p, d, whole)
    new = rng.permutation(n)  # call k was new[k]
    per_call = ("prefill", "decode", "transfer", "tail", "workflow", "kv", "release", "kv_ready", "bound", "hold")
    other = replace(problem, **{name: getattr(problem, name)[new] for name in (*per_call, "imposed")})
    moved = PairPlan(plan.prefill[new], plan.decode[new], np.argsort(new)[plan.order])
    assert judge_pairs(other, moved).objective == pytest.approx(judge_pairs(problem, plan).objective, rel=1e-9)


@CASE
@settings(max_examples=100, deadline=None)
def test_other_units_of_time_only_scale(seed, n, p, d, whole):
    _, problem, plan = drawn(seed, n, p, d, whole)
    times = (
        "prefill",
        "decode",
        "transfer",
        "tail",
        "due",
        "prefill_free",
        "busy_until",
        "release",
        "kv_ready",
        "hold",
    )
    faster = replace(problem, **{name: getattr(problem, name) * 0.25 for name in times})
    was, now = judge_pairs(problem, plan), judge_pairs(faster, plan)
    assert now.completion == pytest.approx(0.25 * was.completion, rel=1e-12)
    assert now.terms["tardiness"] == pytest.approx(0.25 * was.terms["tardiness"], rel=1e-9, abs=1e-12)


@CASE
@settings(max_examples=100, deadline=None)
def test_with_room_for_all_nobody_waits_for_it_and_less_room_is_never_faster(seed, n, p, d, whole):
    _, problem, plan = drawn(seed, n, p, d, whole)
    roomy = replace(problem, kv_capacity=np.full(d, 10**6), seats=np.full(d, 10**3))
    was, now = judge_pairs(problem, plan), judge_pairs(roomy, plan)
    there = plan.decode >= 0
    assert (now.decode_start[there] == now.kv_ready[there]).all()
    assert now.objective <= was.objective + 1e-9


def test_the_worked_example_of_hexagent():
    """Two prompts, two fast and two slow instances: figures by hand from the rule of arXiv 2605.16637."""
    prompt, output = np.array([8000, 4000]), np.array([200, 200])
    rate, gap = np.array([10_000.0, 4_000.0]), np.array([0.02, 0.04])
    bandwidth = np.array([[50e9, 25e9], [25e9, 25e9]])
    problem = PairProblem(
        prefill=prompt[:, None] / rate,
        decode=output[:, None] * gap,
        transfer=prompt[:, None, None] * 327_680 / bandwidth,
        tail=[0.0, 0.0],
        workflow=[0, 1],
        due=[0 + 8 - 10.0, 6 + 10 - 10.0],
        weight=[1.0, 1.0],
        kv=prompt + output,
        kv_capacity=[10_000, 4_500],
    )
    plan = greedy_pairs(problem)
    assert plan.order.tolist() == [0, 1]
    assert plan.prefill.tolist() == [0, 1] and plan.decode.tolist() == [0, 0]
    found = judge_pairs(problem, plan)
    assert found.completion.round(4).tolist() == [4.8524, 8.8524]
    assert found.kv_ready.round(4).tolist() == [0.8524, 1.0524]
    assert found.decode_start[1] == found.completion[0]
    best = solve_pairs(problem, solver="cp-sat", time_limit=5.0)
    assert best.status == "optimal" and best.objective == pytest.approx(plan.objective)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (([0], [0], [0]), r"prefill has shape \(1,\), expected \(2,\)"),
        (([0, 0], [0, 0], [1, 1]), "order is no permutation of the 2 calls"),
        (([0, 2], [0, 0], [0, 1]), "call 1 cannot have prefill instance 2"),
        (([0, 0], [0, 1], [0, 1]), "call 1 cannot have prefill instance 0 and decode instance 1"),
        (([-1, 0], [0, 0], [0, 1]), "call 0 cannot have prefill instance -1"),
        (([-1, 0], [-1, 0], [0, 1]), "call 0 cannot have prefill instance -1 and decode instance -1"),
    ],
)
def test_refuses_what_is_no_plan(plan, message):
    problem = PairProblem(
        prefill=np.ones((2, 2)), decode=np.ones((2, 2)), transfer=np.zeros((2, 2, 2)), tail=np.zeros(2),
        workflow=[0, 0], due=[1.0], weight=[1.0], kv=[1, 9], kv_capacity=[9, 1],
    )  # fmt: skip
    with pytest.raises(ProblemError, match=message):
        judge_pairs(problem, PairPlan(*(np.array(x) for x in plan)))


def test_every_array_of_the_problem_has_a_say():
    """Changing any array changes what some plan costs: none is forgotten on the way to the kernel."""
    rng = np.random.default_rng(5)
    silent = {f.name for f in fields(PairProblem)} - {"bound", "weights", "busy_instance"}
    for _ in range(300):
        problem = random_pairs(rng, 8, 2, 2)
        plan = random_plan(rng, problem)
        before = judge_pairs(problem, plan).objective
        for name in list(silent):
            array = getattr(problem, name)
            if name == "workflow":
                changed = array[::-1]
            elif name in ("kv", "seats", "kv_capacity", "busy_kv"):
                changed = array + 3
            else:
                changed = array + 1.0
            try:
                other = replace(problem, **{name: changed})
                if judge_pairs(other, plan).objective != before:
                    silent.discard(name)
            except ProblemError:
                continue
    assert not silent
