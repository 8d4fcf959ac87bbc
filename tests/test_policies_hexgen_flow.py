"""HexGen-Flow against its published code's rules, restated with its own data structures: lists of step names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import Both, Oracle, assert_decides_as, random_experiment, random_workflows, small_cluster

from hexopt.policies.knowledge import alone_seconds
from hexopt.policies.policy import HexGenFlow
from hexopt.simulation.experiment import Experiment

# STANDARD_WORKFLOW of the published simulator (core/request.py), with the names of our Text-to-SQL trace.
STANDARD_WORKFLOW = (
    ["information_retriever", "extract_keywords", *["information_retriever"] * 3, "generate_candidate"]
    + ["revise"] * 4
    + ["unit_tester", "generate_unit_test", "unit_tester", "evaluate", "unit_tester"]
)


class PublishedHexGenFlow(Oracle):
    """``shared``: the list of remaining steps is one for all workflows, as in the code published first."""

    def __init__(self, alpha: float, shared: bool) -> None:
        self.alpha, self.shared = alpha, shared

    def start(self):
        kinds, training = self.training.kinds, self.training
        seconds = [
            {
                kind: alone_seconds(coef, prompt, 0.0, output, float(budget))
                for kind, prompt, output in zip(kinds, training.prompt, training.output, strict=True)
            }
            for coef, budget in zip(self.fleet.coef, self.fleet.max_batched, strict=True)
        ]
        template = []
        for kind, calls in zip(kinds, training.calls, strict=True):
            known = STANDARD_WORKFLOW.count(kind)
            template += [kind] * (known or round(calls))
        self.seconds, self.work = seconds, [0.0] * len(seconds)
        self.template: list[str] = template
        self.lists: dict[int, list[str]] = {}

    def decide(self, board, r, now):
        call = board.stage[r]
        kind = self.training.kinds[call["kind"]]
        engine = self.dispatch(kind)
        remaining = self.remaining(board, r, kind)
        mean = {s: np.mean([seconds[s] for seconds in self.seconds]) for s in self.training.kinds}
        slo_minus_elapsed = board.workflow["deadline"][call["workflow"]] - now
        slo_of_call = slo_minus_elapsed * mean[kind] / (mean[kind] + sum(mean[s] for s in remaining))
        urgency_when_ready = self.seconds[engine][kind] - slo_of_call
        # The most urgent first; all urgencies grow by one a second, so a fixed order is that at time zero.
        return engine, now - urgency_when_ready

    def dispatch(self, kind: str) -> int:
        reference, work = self.seconds[0], self.work
        if work[0] == 0.0:
            engine = 0
        else:
            scores = []
            for e, gpu in enumerate(self.fleet.gpus):
                k = 0.5 if gpu in ("a6000", "l40s") else 1.0
                ratio = reference[kind] / self.seconds[e][kind]
                scores.append(self.alpha * ratio - (1 - self.alpha) * k * work[e] / work[0])
            engine = scores.index(max(scores))
        work[engine] += self.seconds[engine][kind]
        return engine

    def remaining(self, board, r, kind: str) -> list[str]:
        """The steps that are left, after this call's own is crossed out (once for calls that run in parallel)."""
        workflow = int(board.stage["workflow"][r])
        steps = self.template if self.shared else self.lists.setdefault(workflow, list(self.template))
        beside = r - 1
        parallel = (
            beside >= 0
            and board.stage["workflow"][beside] == workflow
            and board.stage["kind"][beside] == board.stage["kind"][r]
            and board.stage["ready"][beside] == board.stage["ready"][r]
        )
        if not parallel:
            if kind in steps:
                steps.remove(kind)
            if kind == "unit_tester":
                steps[:] = [s for s in steps if s != "revise"]
        return steps


@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_decides_as_the_published_code(seed, alpha, shared):
    assert_decides_as(PublishedHexGenFlow(alpha, shared), HexGenFlow(alpha, as_shipped=shared), seed)


def test_a_revision_after_the_unit_test_has_no_step_to_cross_out():
    # The template's revisions are gone by then, and the count of those made must not wrap around.
    workflows = random_workflows(np.random.default_rng(2), 3)
    kinds = ("unit_tester", "revise", "revise")
    chain = workflows[0].stages[0]
    stages = tuple(
        replace(chain, id=str(k), kind=kind, parents=(str(k - 1),) * (k > 0), prefixes=(), output_segment=None)
        for k, kind in enumerate(kinds)
    )
    experiment = Experiment.of([replace(workflows[0], stages=stages, deadline=9.0)], small_cluster())
    run = experiment.run(Both(HexGenFlow(0.2), PublishedHexGenFlow(0.2, False)), np.zeros(1, int), np.zeros(1))
    # Only unit tests are left after a revision: its share of the nine seconds is no sliver.
    assert run.stage["priority"][1] - run.stage["ready"][1] > 2.0


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_first_call_goes_to_the_first_instance(alpha):
    experiment = random_experiment(1, shortest=2000)
    run = experiment.run(HexGenFlow(alpha), *experiment.sample(6, 1e-3, 0))
    assert run.stage["instance"][0] == 0
    # Alpha one looks at speed alone: all further calls go to the fastest type.
    if alpha == 1.0:
        assert set(run.stage["instance"][1:].tolist()) == {1}
