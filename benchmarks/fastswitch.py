"""FastSwitch's setting: many-turn chats under priorities that change, time to the first token by what is on.

    python benchmarks/fastswitch.py [--conversations 1000] [--rates 0.25,0.5,1]

Llama-3.1-8B with the KV memory of an A10 of 24 GB and its bandwidth (an L40S at 0.69 of its speed, 42,000 tokens), and
Qwen3-32B on an A100 of 80 GB; 60 GB of host memory; conversations arrive as a Poisson process.
"""

from __future__ import annotations

import argparse

import numpy as np

from hexopt.cluster import parse_cluster
from hexopt.policies.fastswitch import FastSwitch
from hexopt.simulation.experiment import Experiment, that_fit
from hexopt.traces.synthesis import synthesize

SETTINGS = {
    "Llama-3.1-8B, A10-like": ({"gpu": "l40s", "kv_tokens": 42_000, "speed": 0.69}, "llama-3.1-8b", 25.0),
    "Qwen3-32B, A100": ({"gpu": "a100", "tp": 1}, "qwen3-32b", 50.0),
}
"""Instance, LLM and steps between two draws of priorities: frequencies 0.04 and 0.02."""
OFF = {"grouped": False, "overlap": False, "reuse": False}
VARIANTS = {
    "recompute": {"host_gb": 0.0},
    "swap as vLLM": OFF,
    "+ groups": OFF | {"grouped": True},
    "+ overlap": OFF | {"grouped": True, "overlap": True},
    "+ reuse": {},
}


def main() -> None:
    """Print the figures as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=1000)
    parser.add_argument("--rates", default="0.25,0.5,1")
    options = parser.parse_args()
    workflows = synthesize("chat", options.conversations, np.random.default_rng(0))
    print("| setting | conversations/s | pattern | swap | TTFT P95 s | P99 s | tokens/s | stalled % | swaps in |")
    print("|---|---|---|---|---|---|---|---|---|")
    for setting, (row, llm, every) in SETTINGS.items():
        instance = {"prefix_caching": False, "max_num_seqs": 256, "max_num_batched_tokens": 2048, **row}
        cluster = parse_cluster({"llm": llm, "instance": [instance]}, "fastswitch")
        experiment = Experiment.of(that_fit(workflows, cluster), cluster)
        for rate in map(float, options.rates.split(",")):
            picks, arrivals = experiment.sample(len(experiment.workload), rate, 0)
            for pattern in ("random", "markov"):
                for variant, switches in VARIANTS.items():
                    run = experiment.run(FastSwitch(every=every, pattern=pattern, **switches), picks, arrivals)
                    waited = run.stage["first_token"] - run.stage["ready"]
                    p95, p99 = np.quantile(waited, [0.95, 0.99])
                    there = run.instance[0]
                    print(
                        f"| {setting} | {rate:g} | {pattern} | {variant} | {p95:.2f} | {p99:.2f} "
                        f"| {run.stage['output'].sum() / run.end:,.0f} "
                        f"| {100 * there['stall_seconds'] / there['busy_seconds']:.1f} "
                        f"| {there['swapped_in'] / 1e6:.2f} M |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
