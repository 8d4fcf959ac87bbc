"""Time the steps of a real vLLM engine: a script for vLLM's own environment, which needs nothing of HexOpt.

    python vllm_engine.py --model DIR --out steps.csv [--load-format dummy] [--seconds 300]

Runs vLLM offline with a scheduler that notes what every step computes and how long it takes, from scheduling to the
update of the requests. The weights do not matter, so ``--load-format dummy`` profiles a model that was never
downloaded, from its ``config.json`` alone.

The load comes in *waves*, each drawn at random: B prompts are computed and decode; then S more arrive at once, which
share P tokens with those of before, by way of the prefix cache; all decode a while and are aborted. So steps come with
prefills alone, decodes alone and both, chunks with and without tokens before them. Every seventh wave lies beyond the
range of the others: contexts above two thirds of the longest that there is time for. A wave is run several times, with
other tokens, and a step's time is the median, as other programs on the machine would otherwise be in it. For an engine
that computes on a processor which others use too, ``--clock cpu`` counts the seconds of this process alone, in the
fastest run, as the others only ever slow it down; give it one thread (``OMP_NUM_THREADS=1``), as several would wait for
each other by spinning.

The CSV has a row a step, columns as in :mod:`hexopt.models.profiling.steps`; the JSON beside it says what ran.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

COLUMNS = (
    "group",
    "beyond",
    "n_prefill",
    "prefill_tokens",
    "prefill_cached",
    "n_decode",
    "decode_context",
    "seconds",
)
_BEYOND_EVERY = 7
_WITHIN = 2 / 3
_DECODES = 6
_MOST_CHUNKS = 8
_WAVES = 60
"""At least so many waves are to fit into the time."""


class Wave(NamedTuple):
    """One wave of requests.

    Parameters
    ----------
    decodes, context
        Prompts that come first, and their tokens.
    chunks, new, cached
        Prompts that come to them, their own tokens, and those that they share with prompts of before.
    """

    decodes: int
    context: int
    chunks: int
    new: int
    cached: int


class Limits(NamedTuple):
    """What the engine takes: requests and tokens a step, tokens a request, and tokens to compute in a wave."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    wave_tokens: int

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt of a wave."""
        return min(self.max_model_len - 4 * _DECODES, self.wave_tokens)


def draw_wave(rng: random.Random, limits: Limits, beyond: bool) -> Wave:
    """Draw a wave, sizes log-uniform; one in four has no decodes, one in four nothing that comes to them."""
    within = max(int(_WITHIN * limits.longest), 1)
    least, most = (within, limits.longest) if beyond else (min(16, within), within)
    kind = rng.random()
    context = _log_uniform(rng, least, most)
    decodes = (
        0 if kind < 0.25 else _log_uniform(rng, 1, max(min(limits.max_num_seqs, limits.wave_tokens // context), 1))
    )
    free = limits.max_num_seqs - decodes
    if decodes > 0 and (kind >= 0.75 or free == 0):
        return Wave(decodes, context, 0, 0, 0)
    chunks = _log_uniform(rng, 1, min(_MOST_CHUNKS, free))
    new = _log_uniform(rng, 1, max(min((limits.max_num_batched_tokens - decodes) // chunks, most), 1))
    cached = 0 if rng.random() < 0.4 or new >= context else context - new
    return Wave(decodes, context, chunks, new, cached)


def _log_uniform(rng: random.Random, low: int, high: int) -> int:
    return min(int(math.exp(rng.uniform(math.log(low), math.log(high + 1)))), high)


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def recording_scheduler(clock: str) -> Any:
    """vLLM's scheduler, made to note every step in its class attribute ``steps``; fails where there is no vLLM."""
    now = CLOCKS[clock]
    from vllm.v1.core.sched.scheduler import Scheduler

    class RecordingScheduler(Scheduler):  # type: ignore[misc, unused-ignore]
        """Times a step from before it is scheduled until its requests are updated."""

        steps: list[dict[str, Any]] = []  # noqa: RUF012

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            self._since = now()
            out = super().schedule(*args, **kwargs)
            chunks, contexts = [], []
            for request_id, tokens in out.num_scheduled_tokens.items():
                request = self.requests[request_id]
                before = request.num_computed_tokens - tokens
                if before < request.num_prompt_tokens:
                    chunks.append((tokens, before))
                else:
                    contexts.append(before + 1)
            self._step = {"chunks": chunks, "contexts": contexts, "preempted": bool(out.preempted_req_ids)}
            return out

        def update_from_output(self, *args: Any, **kwargs: Any) -> Any:
            done = super().update_from_output(*args, **kwargs)
            self.steps.append({**self._step, "seconds": now() - self._since})
            return done

    return RecordingScheduler


class Engine:
    """An offline vLLM engine that notes its steps.

    Parameters
    ----------
    arguments
        Of ``vllm.LLM``.
    clock
        One of :data:`CLOCKS`.
    """

    def __init__(self, arguments: dict[str, Any], clock: str = "wall") -> None:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the scheduler's notes are read in this process
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        from vllm import LLM

        self._scheduler = recording_scheduler(clock)
        llm = LLM(
            skip_tokenizer_init=True,
            scheduler_cls=self._scheduler,
            disable_log_stats=True,
            async_scheduling=False,
            enable_prefix_caching=True,
            **arguments,
        )
        self._engine = llm.llm_engine
        config = self._engine.vllm_config
        self.limits = Limits(
            config.scheduler_config.max_num_seqs,
            config.scheduler_config.max_num_batched_tokens,
            config.model_config.max_model_len,
            wave_tokens=config.scheduler_config.max_num_batched_tokens,
        )
        self.kv_tokens = int(config.cache_config.num_gpu_blocks * config.cache_config.block_size)
        self.vocabulary = int(config.model_config.get_vocab_size())
        self._asked = 0

    def run(self, prompts: list[list[int]], steps: int) -> list[str]:
        """Add prompts and step until they are computed, then ``steps`` more; their names."""
        from vllm import SamplingParams

        names = []
        for prompt in prompts:
            self._asked += 1
            names.append(str(self._asked))
            parameters = SamplingParams(max_tokens=4 * _DECODES, ignore_eos=True, temperature=0.0, detokenize=False)
            self._engine.add_request(names[-1], {"prompt_token_ids": prompt}, parameters)
        left = steps
        while left > 0 and self._engine.has_unfinished_requests():
            self._engine.step()
            left -= not (self._scheduler.steps and self._scheduler.steps[-1]["chunks"])
        return names

    def abort(self, names: list[str]) -> None:
        """End requests."""
        self._engine.abort_request(names)

    def take_steps(self) -> list[dict[str, Any]]:
        """What was noted since the last call."""
        noted = list(self._scheduler.steps)
        self._scheduler.steps.clear()
        return noted


def run_wave(engine: Engine, rng: random.Random, wave: Wave, known: list[list[int]]) -> list[list[int]]:
    """Run a wave; ``known`` are earlier prompts that the prefix cache may hold. Returns those known after it."""

    def fresh(tokens: int) -> list[int]:
        return [rng.randrange(4, engine.vocabulary) for _ in range(tokens)]

    first = [fresh(wave.context) for _ in range(wave.decodes)]
    running = engine.run(first, _DECODES) if first else []
    shared = [p for p in first or known if len(p) >= wave.cached]
    if wave.chunks:
        prefixes = [rng.choice(shared)[: wave.cached] if shared else [] for _ in range(wave.chunks)]
        running += engine.run([prefix + fresh(wave.new) for prefix in prefixes], _DECODES)
    engine.abort(running)
    return first or known


def composition(step: dict[str, Any], longest: int) -> tuple[int, ...] | None:
    """What a step computed, as in the CSV; None if its chunks are so unequal that their sums would not say it."""
    chunks, contexts = step["chunks"], step["contexts"]
    if step["preempted"] or not (chunks or contexts):
        return None
    new, cached = sum(n for n, _ in chunks), sum(p for _, p in chunks)
    attention = sum(n * (p + n / 2) for n, p in chunks)
    if chunks and abs(new * (cached + new / 2) / len(chunks) - attention) > 0.02 * attention:
        return None
    beyond = max([n + p for n, p in chunks] + contexts) > _WITHIN * longest
    return (int(beyond), len(chunks), new, cached, len(contexts), sum(contexts))


def sample(
    engine: Engine, seconds: float, repeats: int, typical: Callable[[list[float]], float], seed: int
) -> list[tuple[int | float, ...]]:
    """Run waves for so many seconds; the rows of the CSV, ``typical`` of a step's times in each.

    The first, largest waves warm up and are left out.
    """
    rng = random.Random(seed)
    limits = engine.limits
    most = min(limits.max_model_len // 2, limits.max_num_batched_tokens)
    warm = Wave(1, most, min(limits.max_num_seqs - 1, 1), max(most // 2, 1), 0)
    known = run_wave(engine, rng, warm, [])
    start = time.monotonic()
    known = run_wave(engine, rng, warm, known)
    speed = 1.5 * most / (time.monotonic() - start)
    tokens = int(min(speed * seconds / _WAVES / repeats, 0.8 * engine.kv_tokens))
    limits = limits._replace(wave_tokens=max(tokens, 64))
    engine.take_steps()
    rows: list[tuple[int | float, ...]] = []
    said, start, group = 0.0, time.monotonic(), 0
    while (spent := time.monotonic() - start) < seconds:
        if spent - said > max(seconds / 20, 2.0):
            said = spent
            print(f"{len(rows)} steps of {group} waves, {seconds - spent:.0f} s left", file=sys.stderr, flush=True)
        wave = draw_wave(rng, limits, beyond=group % _BEYOND_EVERY == _BEYOND_EVERY - 1)
        times: dict[tuple[int, ...], list[float]] = {}
        for _ in range(repeats):
            known = run_wave(engine, rng, wave, known)
            for step in engine.take_steps():
                key = composition(step, limits.longest)
                if key is not None:
                    times.setdefault(key, []).append(step["seconds"])
        rows += [(group, *key, typical(seen)) for key, seen in times.items()]
        group += 1
    return rows


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder or name of the model")
    parser.add_argument("--out", required=True, type=Path, help="CSV to write; a JSON is written beside it")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to sample, start not counted")
    parser.add_argument("--repeats", type=int, default=3, help="times that a wave is run")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: for an engine on a busy processor")
    parser.add_argument("--load-format", default="auto", help="vLLM's; dummy needs no weights")
    parser.add_argument("--tp", type=int, default=1, help="tensor parallelism")
    parser.add_argument("--pp", type=int, default=1, help="pipeline parallelism")
    parser.add_argument("--engine-args", type=json.loads, default={}, help="further arguments of vllm.LLM, as JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn waves")
    chosen = parser.parse_args()
    print(f"starting vLLM with {chosen.model}", file=sys.stderr, flush=True)
    engine = Engine(
        {
            "model": chosen.model,
            "load_format": chosen.load_format,
            "tensor_parallel_size": chosen.tp,
            "pipeline_parallel_size": chosen.pp,
            **chosen.engine_args,
        },
        chosen.clock,
    )
    typical = min if chosen.clock == "cpu" else statistics.median
    rows = sample(engine, chosen.seconds, chosen.repeats, typical, chosen.seed)
    import vllm

    about = {"engine": f"vLLM {vllm.__version__}", "model": chosen.model, "tp": chosen.tp, "pp": chosen.pp}
    about |= {"clock": chosen.clock, "kv_tokens": engine.kv_tokens, "limits": engine.limits._asdict()}
    unfinished = chosen.out.with_name(f".{chosen.out.name}.part")
    chosen.out.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows((*row[:-1], f"{row[-1]:.6g}") for row in rows)
    unfinished.replace(chosen.out)
    print(f"wrote {len(rows)} steps to {chosen.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
