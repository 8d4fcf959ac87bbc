"""Past-Future's setting: clients that each send their next call when the last one has ended; goodput by admission rule.

    python benchmarks/closed_loop.py [--clients 20,40,60,80,100] [--calls 500]

One A100 with Llama-3.1-8B and 120,000 tokens of KV. Goodput: output tokens a second of the calls whose first token came
within 10 s and which never stood still for 1.5 s after it. Whether a call stands still is looked up every quarter of a
simulated second, so pauses are known to that.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from past_future import LENGTHS

from hexopt.cluster import parse_cluster
from hexopt.policies.past_future import PastFuture
from hexopt.policies.policy import LeastLoaded, Policy
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.loop import PAUSED
from hexopt.simulation.simulator import advance, build, fleet_of, instance_table
from hexopt.traces import Stage, Workflow

FIRST_TOKEN, STANDSTILL, LOOK = 10.0, 1.5, 0.25
POLICIES: dict[str, Policy] = {
    "vLLM": LeastLoaded(),
    "aggressive 99%": PastFuture(rule="aggressive", share=0.99),
    "aggressive 95%": PastFuture(rule="aggressive", share=0.95),
    "conservative": PastFuture(rule="conservative"),
    "past-future": PastFuture(),
    "true lengths": PastFuture(rule="true"),
}


def draw(name: str, rng: np.random.Generator) -> tuple[int, int]:
    """Prompt and output tokens of a call; ``o1``: log-normal with the means of ShareGPT-o1, spreads assumed."""
    if name == "o1":
        prompt, output = rng.lognormal(np.log(381) - 0.5, 1.0), rng.lognormal(np.log(2160) - 0.18, 0.6)
        return min(max(int(prompt), 1), 4096), min(max(int(output), 1), 8192)
    prompts, outputs = LENGTHS[name]
    return int(rng.integers(*prompts)), int(rng.integers(*outputs))


def run(experiment: Experiment, policy: Policy) -> Any:
    """The stages after the run, and the longest standstill of each (s)."""
    count = len(experiment.workload)
    jobs = experiment.workload.draw(np.arange(count), np.zeros(count), experiment.deadline)
    instance = instance_table(experiment.cluster, policy.by_priority)
    policy.configure(instance)
    fleet = fleet_of(experiment.cluster)
    sim: Any = build(jobs, instance, fleet.coef)
    know = policy.prepare(fleet, experiment.training, count)
    stage = sim.stage
    still, longest, now = np.zeros(len(stage)), np.zeros(len(stage)), 0.0
    while advance(sim, know, policy, now) == PAUSED:
        begun = (stage["generated"] > 0) & np.isnan(stage["finish"])
        waits = begun & ((stage["held"] == 0) | (stage["computed"] < stage["prompt"] + stage["generated"] - 1))
        still = np.where(waits, still + LOOK, 0.0)
        longest = np.maximum(longest, still)
        now += LOOK
    return stage, longest


def main() -> None:
    """Print the figures as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="20,40,60,80,100")
    parser.add_argument("--lengths", default="o1,D1,D3")
    parser.add_argument("--calls", type=int, default=500)
    options = parser.parse_args()
    row = {"gpu": "a100", "kv_tokens": 120_000, "max_num_seqs": 512, "prefix_caching": False}
    cluster = parse_cluster({"llm": "llama-3.1-8b", "instance": [row]}, "closed-loop")
    print("| lengths | clients | rule | tokens/s | goodput tokens/s | P99 first token s | preempted % |")
    print("|---|---|---|---|---|---|---|")
    for name in options.lengths.split(","):
        for clients in map(int, options.clients.split(",")):
            rng = np.random.default_rng(0)
            each = -(-options.calls // clients)
            chats = [[draw(name, rng) for _ in range(each)] for _ in range(clients)]
            workflows = [
                Workflow(str(c), tuple(Stage(str(k), "call", *n, (str(k - 1),) * (k > 0)) for k, n in enumerate(chat)))
                for c, chat in enumerate(chats)
            ]
            experiment = Experiment.of(workflows, cluster)
            for rule, policy in POLICIES.items():
                stage, longest = run(experiment, policy)
                first = stage["first_token"] - stage["ready"]
                good = (first <= FIRST_TOKEN) & (longest < STANDSTILL)
                end = stage["finish"].max()
                print(
                    f"| {name} | {clients} | {rule} | {stage['output'].sum() / end:,.0f} "
                    f"| {stage['output'][good].sum() / end:,.0f} | {np.quantile(first, 0.99):.1f} "
                    f"| {100 * stage['preemptions'].sum() / len(stage):.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
