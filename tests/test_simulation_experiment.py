"""From a trace to runs: stand-alone latencies, training, deadlines and capacity against plain recursions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import KINDS, random_workflows, small_cluster

from hexopt.cluster import load_cluster
from hexopt.models.roofline import features
from hexopt.policies.registry import make_policy
from hexopt.simulation.experiment import Experiment, standalone_seconds, train
from hexopt.simulation.workload import Workload
from hexopt.traces import Stage, Workflow
from hexopt.traces.synthesis import synthesize

SEED = given(st.integers(0, 2**31))


def service(coef, budget: int, stage: Stage) -> float:
    """The call alone on an idle instance: its chunks, then its decodes one by one."""
    prompt = stage.prompt_tokens
    chunks = [(min(budget, prompt - done), done) for done in range(0, prompt, budget)]
    work = [(1, new, new * (done + new / 2), done + new, 0, 0) for new, done in chunks]
    work += [(0, 0, 0, 0, 1, prompt + k) for k in range(1, stage.output_tokens)]
    return float((features(*np.array(work, dtype=float).T) @ coef).sum())


def tail(workflow: Workflow, stage: Stage, seconds) -> float:
    """Longest way from the stage's end to the workflow's, where a call takes ``seconds(call)``."""
    children = [s for s in workflow.stages if stage.id in s.parents]
    return max((s.tool_delay + seconds(s) + tail(workflow, s, seconds) for s in children), default=0.0)


@SEED
@settings(max_examples=25, deadline=None)
def test_standalone_latency_is_the_longest_way_on_the_fastest_instances(seed):
    workflows, cluster = random_workflows(np.random.default_rng(seed), 3), small_cluster()

    def fastest(stage: Stage) -> float:
        return min(service(i.cell.coef, i.max_num_batched_tokens, stage) for i in cluster.instances)

    latency, tails = standalone_seconds(Workload(workflows), cluster)
    wanted = [tail(w, s, fastest) for w in workflows for s in w.stages]
    np.testing.assert_allclose(tails, wanted, rtol=1e-9, atol=1e-12)
    first = [max(s.tool_delay + fastest(s) + tail(w, s, fastest) for s in w.stages if not s.parents) for w in workflows]
    np.testing.assert_allclose(latency, first, rtol=1e-9)


@SEED
@settings(max_examples=25, deadline=None)
def test_no_run_is_faster_than_alone(seed):
    workflows = random_workflows(np.random.default_rng(seed), 6)
    experiment = Experiment.of(workflows, small_cluster(prefix_caching=False))
    picks, arrivals = experiment.sample(12, 30.0, seed)
    run = experiment.run(make_policy("edf"), picks, arrivals)
    latency = run.workflow["finish"] - run.workflow["arrival"]
    assert (latency >= experiment.standalone[picks] * (1 - 1e-9)).all()


@SEED
@settings(max_examples=25, deadline=None)
def test_training_is_the_means_and_observations_by_kind(seed):
    workflows, cluster = random_workflows(np.random.default_rng(seed), 4), small_cluster()
    kinds = (*KINDS[::-1], "never seen")
    training = train(workflows, kinds, cluster)
    mean = np.mean([i.cell.coef for i in cluster.instances], axis=0)
    calls = [(w, s) for w in workflows for s in w.stages]
    tails = [tail(w, s, lambda stage: service(mean, 256, stage)) for w, s in calls]
    for k, kind in enumerate(kinds):
        own = [s for _, s in calls if s.kind == kind]
        shown = own or [s for _, s in calls]
        assert training.prompt[k] == pytest.approx(np.mean([s.prompt_tokens for s in shown]))
        assert training.output[k] == pytest.approx(np.mean([s.output_tokens for s in shown]))
        assert training.calls[k] == pytest.approx(len(own) / len(workflows))
        assert training.lengths.seen[k, -1] == training.tails.seen[k, -1] == len(own)
        assert training.lengths.total[k, -1] == sum(s.output_tokens for s in own)
        of_kind = sum(t for t, (_, s) in zip(tails, calls, strict=True) if s.kind == kind)
        assert training.tails.total[k, -1] == pytest.approx(of_kind, rel=1e-9)


def test_the_pilot_is_every_fifth_workflow_of_a_long_trace():
    workflows = random_workflows(np.random.default_rng(0), 103)
    experiment = Experiment.of(workflows, small_cluster())
    assert experiment.training.lengths.seen[-1, -1] == sum(len(w.stages) for w in workflows[::5])
    few = Experiment.of(workflows[:30], small_cluster())
    assert few.training.lengths.seen[-1, -1] == sum(len(w.stages) for w in workflows[:30])


@pytest.mark.parametrize(("slo", "factor"), [(None, 3.0), (None, 0.5), (7.0, 3.0)])
def test_deadline_is_the_traces_own_or_the_slo_or_a_multiple_of_its_familys_mean(slo, factor):
    workflows = random_workflows(np.random.default_rng(4), 20)
    experiment = Experiment.of(workflows, small_cluster(), slo=slo, slo_factor=factor)
    for w, deadline in zip(workflows, experiment.deadline, strict=True):
        alike = [a for a, other in zip(experiment.standalone, workflows, strict=True) if other.family == w.family]
        promised = slo if slo is not None else factor * sum(alike) / len(alike)
        assert deadline == pytest.approx(w.deadline if w.deadline is not None else promised)
    run = experiment.run(make_policy("edf"), np.array([3, 5]), np.array([1.0, 2.0]))
    np.testing.assert_array_equal(run.workflow["deadline"], experiment.deadline[[3, 5]] + [1.0, 2.0])


def test_a_deadline_may_be_a_multiple_of_the_workflows_own_latency():
    workflows = random_workflows(np.random.default_rng(4), 20)
    own = Experiment.of(workflows, small_cluster(), slo_scale=2.5)
    given = np.array([np.nan if w.deadline is None else w.deadline for w in workflows])
    np.testing.assert_allclose(own.deadline, np.where(np.isnan(given), 2.5 * own.standalone, given))
    assert np.isnan(given).any()


def test_a_sample_uses_every_template_before_any_a_second_time():
    experiment = Experiment.of(random_workflows(np.random.default_rng(0), 7), small_cluster())
    picks, arrivals = experiment.sample(17, 2.0, 0)
    assert sorted(picks[:7]) == sorted(picks[7:14]) == list(range(7)) and len(set(picks[14:])) == 3
    assert (np.diff(arrivals) > 0).all()
    again = experiment.sample(17, 2.0, 0)
    np.testing.assert_array_equal(picks, again[0])
    np.testing.assert_array_equal(arrivals, again[1])
    assert experiment.sample(17, 2.0, 1)[1][0] != arrivals[0]


@pytest.mark.parametrize(("policy", "share"), [(None, 0.5), ("round-robin", 0.5), ("greedy-urgency", 0.95)])
@pytest.mark.parametrize("scale", [None, 4.0])
def test_capacity_is_where_attainment_falls_below_the_share(policy, share, scale):
    workflows = synthesize("text-to-sql", 60, np.random.default_rng(1))
    experiment = Experiment.of(workflows, load_cluster("hetero-1"))
    chosen = None if policy is None else make_policy(policy)

    def attainment(rate: float) -> float:
        picks, arrivals = experiment.sample(600, rate, 3)
        run = experiment.run(chosen or make_policy("edf"), picks, arrivals)
        allowed = experiment.deadline[picks] if scale is None else scale * experiment.standalone[picks]
        return float((run.workflow["finish"] - arrivals <= allowed).mean())

    rate = experiment.capacity(600, seed=3, policy=chosen, share=share, scale=scale)
    assert attainment(rate) >= share > attainment(rate * 1.03)


def test_capacity_is_no_burst_that_a_large_cluster_absorbs():
    """Runs last at least ten stand-alone latencies, however few workflows were asked for."""
    workflows = synthesize("text-to-sql", 30, np.random.default_rng(1))
    experiment = Experiment.of(workflows, load_cluster("hetero-1"))
    alone = experiment.standalone.mean()
    rate = experiment.capacity(10)
    assert 10 / rate < 10 * alone
    assert rate == pytest.approx(experiment.capacity(int(10 * rate * alone)), rel=0.3)


def test_capacity_without_a_knee():
    workflows = [replace(w, deadline=None) for w in random_workflows(np.random.default_rng(0), 5)]
    assert Experiment.of(workflows, small_cluster(), slo=1e-6).capacity(20) == 0.0
    assert math.isinf(Experiment.of(workflows, small_cluster(), slo=1e6).capacity(20))
