"""Work classes and what they cost at best: never more than the simulator's own instances take."""

from __future__ import annotations

import numpy as np
import pytest
from planning_cases import demand, options, prover, workflows

from hexopt.planning.calibration import factors
from hexopt.planning.demand import Demand, Service
from hexopt.planning.efficiency import BATCHES, efficiency_of
from hexopt.planning.fleet import cluster_of
from hexopt.planning.work import sizes_of, work_of
from hexopt.policies.policy import GreedyUrgency
from hexopt.simulation.experiment import train
from hexopt.simulation.simulator import simulate
from hexopt.traces.workflow import Prefix, Stage, Workflow


def test_classes_hold_all_the_work() -> None:
    both = Demand((Service("a", workflows(20), 0.5, 60.0), Service("b", workflows(15, family="chat"), 2.0, 20.0)))
    instances = [o.instance for o in options(["h100 tp4", "a100 tp4"])]
    for most in (200, 50, 10):
        work = work_of(both, instances, 0.95, most)
        stage = both.workload.template_stages()
        calls = np.repeat(both.template_rate, both.workload.stages)
        assert work.rate.sum() == pytest.approx(calls.sum())
        assert (work.rate * work.sizes.prompt).sum() == pytest.approx((calls * stage["prompt"]).sum())
        assert (work.rate * (work.sizes.decoded + 1)).sum() == pytest.approx((calls * stage["output"]).sum())
        assert len(set(work.names)) == len(work)


def test_fewer_classes_where_few_are_wanted() -> None:
    instances = [options(["h100 tp4"])[0].instance]
    fine, coarse = (len(work_of(demand(), instances, 0.95, most)) for most in (10_000, 30))
    assert fine > 30 >= coarse


def test_what_a_cache_could_hold() -> None:
    def call(name: str, prompt: int, prefixes: tuple[Prefix, ...], output: str | None = None) -> Stage:
        return Stage(name, "k", prompt, 10, prefixes=prefixes, output_segment=output)

    template = Prefix("template", 100)
    flow = Workflow(
        "w",
        (
            call("first", 150, (template, Prefix("talk", 50, True)), "said"),
            call(
                "second", 200, (template, Prefix("talk", 50, True), Prefix("said", 10, True), Prefix("more", 40, True))
            ),
            call("other", 120, (Prefix("elsewhere", 120, True),)),
            call("again", 120, (Prefix("elsewhere", 60, True),)),
        ),
    )
    sizes = sizes_of(Demand((Service("s", (flow,), 1.0, 60.0),)))
    # All workflows share the template; the second call has all that the first read and said.
    assert sizes.cached.tolist() == [100.0, 160.0, 0.0, 60.0]
    assert sizes.new.tolist() == [50.0, 40.0, 120.0, 60.0]


def test_a_larger_batch_is_cheaper_and_slower() -> None:
    kinds = options(["h100 tp4", "a6000 tp2 pp2"])
    work = work_of(demand(), [o.instance for o in kinds], 0.95)
    found = efficiency_of(work, kinds)
    for j, option in enumerate(kinds):
        last = sum(b <= option.instance.max_num_seqs for b in BATCHES)
        assert np.isfinite(found.busy[:, j, :last]).all() and np.isinf(found.busy[:, j, last:]).all()
        assert (np.diff(found.latency[:, j, :last], axis=1) > 0).all()
        assert (np.diff(found.busy[:, j, :last], axis=1) < 0).mean() > 0.8


@pytest.mark.parametrize("name", ["h100 tp4", "h200 tp2", "a100 tp4", "b200 tp4", "a6000 tp2 pp2", "l40s tp2 pp2"])
@pytest.mark.parametrize("family", ["text-to-sql", "chat", "map-reduce"])
def test_no_simulated_instance_is_busy_for_less_than_at_best(name: str, family: str) -> None:
    """The bound's bedrock: busy seconds of a flooded instance against the sum of its calls' least busy seconds."""
    kinds = options([name])
    flows = tuple(
        w for w in workflows(60, 1, family) if max(s.prompt_tokens + s.output_tokens for s in w.stages) < 2**15
    )
    of = Demand((Service("s", flows, 1.0, 60.0),))
    work = work_of(of, [kinds[0].instance], 0.95)
    least = efficiency_of(work, kinds).busy[:, 0].min(axis=1)[work.call_class].sum()
    for seed, gap in ((0, 0.0), (1, 2.0)):
        picks = np.random.default_rng(seed).permutation(len(flows))
        cluster = cluster_of(kinds, (1,))
        jobs = of.workload.draw(picks, np.arange(len(flows)) * gap, np.full(len(flows), 60.0))
        run = simulate(jobs, of.workload.kinds, cluster, GreedyUrgency(), train(flows, of.workload.kinds, cluster))
        assert run.instance["busy_seconds"].sum() >= least


def test_calibration_tells_poor_options_from_good_ones() -> None:
    kinds = options(["h200 tp4", "h100 tp2"])
    of = demand()
    setting = prover(of, kinds).setting
    work = work_of(of, [o.instance for o in kinds], 0.95)
    found = factors(setting, work)
    assert (found >= 1.0).all()
    # Two H100 leave the 70B model 21,000 tokens of KV cache.
    assert found[:, 0].max() < 1.5 < found[:, 1].max()
