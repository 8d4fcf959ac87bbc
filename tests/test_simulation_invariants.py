"""What holds for every run under every policy, and closed forms of runs that can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import ALL_POLICIES, RATE, random_experiment, small_cluster

from hexopt.models.roofline import features
from hexopt.policies.registry import make_policy
from hexopt.simulation.cycles import COUNTS
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.loop import FINISHED, PAUSED
from hexopt.simulation.simulator import Run, advance, build, fleet_of, instance_table
from hexopt.simulation.state import DOWN
from hexopt.traces import Prefix, Stage, Workflow

CASE = given(st.integers(0, 2**31), st.sampled_from(ALL_POLICIES))


def run_of(seed: int, policy: str, until: float = math.inf) -> tuple[Run, list[Workflow]]:
    """A run of random workflows, and the workflows in the order of their arrival."""
    experiment = random_experiment(seed)
    picks, arrivals = experiment.sample(12, rate=RATE, seed=seed)
    run = experiment.run(make_policy(policy), picks, arrivals, until)
    return run, [experiment.workload.workflows[pick] for pick in picks]


def assert_close(actual, wanted) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=0)


@CASE
@settings(max_examples=60, deadline=None)
def test_every_call_ends_once_in_its_order(seed, policy):
    run, templates = run_of(seed, policy)
    stage, workflow = run.stage, run.workflow
    assert len(stage) == run.instance["finished"].sum()
    # Who scales places calls anew that wait where nothing runs.
    assert run.decisions == len(stage) or (run.decisions > len(stage) and "scale=true" in policy)
    assert (stage["generated"] == stage["output"]).all()
    assert (stage["ready"] <= stage["start"]).all()
    assert (stage["start"] < stage["first_token"]).all() and (stage["first_token"] <= stage["finish"]).all()
    for w, row in enumerate(workflow):
        rows = np.flatnonzero(stage["workflow"] == w)
        assert row["finish"] == stage["finish"][rows].max() and row["stages_left"] == 0
        position = {s.id: rows[k] for k, s in enumerate(templates[w].stages)}
        for s in templates[w].stages:
            before = max((stage["finish"][position[p]] for p in s.parents), default=row["arrival"])
            assert stage["ready"][position[s.id]] == before + s.tool_delay
    assert run.end == workflow["finish"].max()


@CASE
@settings(max_examples=60, deadline=None)
def test_tokens_are_neither_lost_nor_computed_twice(seed, policy):
    run, _ = run_of(seed, policy)
    stage, instance = run.stage, run.instance
    # The last token is only emitted; a preempted call computes some of its tokens again.
    needed = np.bincount(stage["instance"], stage["prompt"] + stage["output"] - 1, len(instance))
    done = instance["computed_tokens"] + instance["cached_tokens"]
    preempted = instance["preemptions"] > 0
    assert stage["preemptions"].sum() == instance["preemptions"].sum() and done.sum() >= needed.sum()
    if stage["migrations"].any() or stage["lost"].any():
        # What a call has computed at several instances is counted at each.
        assert preempted.any() or stage["lost"].any() or done.sum() == needed.sum()
    else:
        assert (done[~preempted] == needed[~preempted]).all() and (done >= needed).all()
        assert (np.bincount(stage["instance"], stage["preemptions"], len(instance)) == instance["preemptions"]).all()
    calm = stage["preemptions"].sum() == 0
    assert not calm or stage["cached"].sum() == instance["cached_tokens"].sum()
    assert (stage["cached"] < stage["prompt"]).all() and (stage["cached"] % instance["block_size"][0] == 0).all()


@CASE
@settings(max_examples=25, deadline=None)
def test_at_every_moment_memory_and_seats_suffice_and_nothing_idles_with_work(seed, policy):
    experiment, chosen = random_experiment(seed), make_policy(policy)
    picks, arrivals = experiment.sample(12, rate=RATE, seed=seed)
    jobs = experiment.workload.draw(picks, arrivals, experiment.deadline[picks])
    fleet = fleet_of(experiment.cluster)
    instance = instance_table(experiment.cluster, chosen.by_priority, chosen.preempted_first)
    chosen.configure(instance)
    sim = build(jobs, instance, fleet.coef)
    know = chosen.prepare(fleet, experiment.training, len(picks))
    now = 0.0
    while advance(sim, know, chosen, until=now) == PAUSED:
        now += 0.05
        here = sim.stage["instance"][:, None] == np.arange(len(sim.instance))
        free, blocks = sim.instance["free"], sim.instance["blocks"]
        assert (free >= 0).all() and (sim.instance["running"] <= sim.instance["max_seqs"]).all()
        # Blocks in use: private ones of each call, and those of nodes that calls hold, each counted once.
        private = ((sim.stage["held"] - sim.stage["credited"])[:, None] * here).sum(axis=0)
        shared = (sim.here["cached"] * (sim.here["holders"] > 0)).sum(axis=1)
        coming = np.bincount(sim.stage["bound"], sim.stage["allocated"], len(free))
        assert (free + private + shared + coming == blocks).all()
        queued = here & ~np.isnan(sim.stage["ready"])[:, None] & np.isnan(sim.stage["finish"])[:, None]
        sets_out = np.isin(np.arange(len(sim.stage)), sim.instance["moving"] - 1)
        queued &= ~((sim.stage["allocated"] > 0) & ~sets_out)[:, None]
        inside = sum(sim.instance[field] for field in ("running", "waiting", "loading", "joining"))
        assert (queued.sum(axis=0) == inside).all()
        up = sim.instance["state"] != DOWN
        assert ((sim.instance["busy"] == 1) == (queued.any(axis=0) & up)).all()
    assert (sim.instance["free"] == sim.instance["blocks"]).all() and (sim.here["holders"] == 0).all()
    assert advance(sim, know, chosen) == FINISHED


@CASE
@settings(max_examples=25, deadline=None)
def test_the_same_seed_is_the_same_run(seed, policy):
    (one, _), (other, _) = run_of(seed, policy), run_of(seed, policy)
    for field in ("stage", "workflow", "instance"):
        assert getattr(one, field).tobytes() == getattr(other, field).tobytes()


@given(st.integers(0, 2**31), st.sampled_from(ALL_POLICIES), st.floats(0.01, 1.2))
@settings(max_examples=40, deadline=None)
def test_a_run_that_is_stopped_is_the_beginning_of_the_whole(seed, policy, share):
    whole, _ = run_of(seed, policy)
    until = whole.end * share
    part, _ = run_of(seed, policy, until)
    assert part.end == min(until, whole.end)
    for field in ("ready", "start", "first_token", "finish"):
        happened = whole.stage[field] <= until
        # When tools will have run is known beforehand, so ``ready`` may lie ahead.
        assert field == "ready" or (~np.isnan(part.stage[field]) == happened).all()
        np.testing.assert_array_equal(part.stage[field][happened], whole.stage[field][happened])
    np.testing.assert_array_equal(
        part.workflow["finish"], np.where(whole.workflow["finish"] <= until, whole.workflow["finish"], np.nan)
    )


def step(coef, *work: float) -> float:
    """Seconds of one step that computes S, T, A, K, B, C."""
    return float(features(*([x] for x in work))[0] @ coef)


def one_chunk(coef, new: int, done: int = 0) -> float:
    return step(coef, 1, new, new * (done + new / 2), done + new, 0, 0)


def decodes(coef, contexts) -> float:
    """A step of one decode each for calls of these contexts, the new token included."""
    return step(coef, 0, 0, 0, 0, len(contexts), sum(contexts))


def alone(coef, prompt: int, output: int, budget: int) -> float:
    chunks = [(min(budget, prompt - done), done) for done in range(0, prompt, budget)]
    return sum(one_chunk(coef, *c) for c in chunks) + sum(decodes(coef, [prompt + k]) for k in range(1, output))


def on_one_h100(*stages: Stage, **limits) -> tuple[Run, np.ndarray]:
    cluster = small_cluster(max_num_seqs=64, **limits)
    cluster = type(cluster)("one", cluster.instances[1:2])
    experiment = Experiment.of([Workflow("w", stages, arrival=2.5)], cluster)
    run = experiment.run(make_policy("edf"), np.zeros(1, dtype=np.int64), np.array([2.5]))
    return run, cluster.instances[0].cell.coef


@pytest.mark.parametrize(("prompt", "output"), [(1, 1), (256, 1), (257, 2), (1000, 300)])
def test_a_call_alone_takes_its_chunks_and_its_decodes(prompt, output):
    run, coef = on_one_h100(Stage("0", "k", prompt, output, tool_delay=0.25))
    assert run.stage["start"][0] == 2.75
    assert_close(run.stage["finish"][0] - 2.75, alone(coef, prompt, output, 256))


def test_a_chain_is_the_sum_of_its_calls_and_delays():
    lengths = [(300, 20), (700, 40), (50, 60)]
    run, coef = on_one_h100(
        *(Stage(str(k), "k", *n, parents=(str(k - 1),) * (k > 0), tool_delay=k / 8) for k, n in enumerate(lengths))
    )
    assert_close(run.end - 2.5, sum(alone(coef, *n, 256) for n in lengths) + 3 / 8)


def test_a_fork_prefills_together_and_decodes_together_until_the_shorter_one_ends():
    fork = [Stage("0", "k", 100, 30), Stage("1", "k", 120, 50)]
    run, coef = on_one_h100(*fork, Stage("2", "k", 40, 10, parents=("0", "1")))
    together = step(coef, 2, 220, 100 * 50 + 120 * 60, 220, 0, 0)
    short = 2.5 + together + sum(decodes(coef, [100 + k, 120 + k]) for k in range(1, 30))
    long = short + sum(decodes(coef, [120 + k]) for k in range(30, 50))
    assert_close(run.stage["finish"], [short, long, long + alone(coef, 40, 10, 256)])


def test_a_found_prefix_is_not_computed_again():
    shared = (Prefix("template", 210),)
    run, coef = on_one_h100(Stage("0", "k", 250, 5, (), shared), Stage("1", "k", 300, 5, ("0",), shared))
    assert run.stage["cached"].tolist() == [0, 208]
    second = one_chunk(coef, 92, 208) + sum(decodes(coef, [300 + k]) for k in range(1, 5))
    assert_close(run.stage["finish"][1] - run.stage["finish"][0], second)


@pytest.mark.skipif(not COUNTS, reason="this processor has no cycle counter for programs")
def test_deciding_is_a_part_of_the_time_and_grows_with_the_rule():
    experiment = random_experiment(11)
    picks, arrivals = experiment.sample(600, rate=RATE, seed=11)
    parts = {}
    for name in ("round-robin", "greedy-urgency"):
        run = experiment.run(make_policy(name), picks, arrivals)
        assert 0.0 < run.scheduler_cpu_seconds < run.engine_cpu_seconds
        parts[name] = run.scheduler_cpu_seconds / run.decisions
    assert parts["round-robin"] < parts["greedy-urgency"]
