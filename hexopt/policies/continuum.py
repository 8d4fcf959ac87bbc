"""Continuum: the KV of a workflow stays pinned while its tools run, for as long as that pays.

Continuum (arXiv 2511.02230; later versions call the mechanism CacheTTL). When a call ends, its contents are pinned for

``tau* = argmax over tau of P(tau, f) * (T * eta + R) - tau``, tau in {0} and the durations seen of tool f,

where P(tau, f) is the share of f's durations up to tau, T the mean queueing delay of calls that came back and found
their KV gone (0 at first), R the seconds of prefilling the context again, or of reloading it, and
``eta = -Corr(k, N - k)`` over the turns k of the workflows of N turns that have ended. Until more than K durations are
known, gaps are taken to be exponential of mean 1 and eta as 1: ``tau = max(0, ln(T + R))``; with at most K of a tool's
own, those of all tools count.

Queues are ordered by (preempted, pinned, arrival of the workflow); the first that does not fit holds up the rest, and
while it does not, the pin of the workflow that arrived last goes, see :mod:`hexopt.simulation.pinning`.

``ttl`` fixes tau, in seconds; with 0 nothing is pinned, which is first come first served by workflow. With ``host_gb``
what calls leave is kept in host memory, too, see :mod:`hexopt.simulation.keeping`: a call whose contents are not pinned
any more goes back to them, and reloads them where that is faster than prefilling.

Assumed: K = 100; a tool is what follows a kind of call, so f is the kind of the call that ends, and a duration the time
until the workflow's next call is ready; T is over the last 100 such calls, and durations over the last 1000; a call
whose workflow has something pinned goes there, any other to the least loaded instance for its speed, as
``workflow-fcfs``; a running call that is short of memory takes pinned blocks before it preempts.

Deviations: a preempted call goes first from then on, also where it is evicted again; the copy to host memory costs
nothing.
"""

# mypy: ignore-errors
from __future__ import annotations

import math

from hexopt.models.kernel import kernel
from hexopt.policies.compiled import first_fitting, takes
from hexopt.policies.deadline import least_loaded_for_its_speed
from hexopt.policies.knowledge import alone_seconds
from hexopt.simulation.hostmemory import copy_seconds
from hexopt.simulation.pinning import pin
from hexopt.simulation.state import NONE

FIXED = 0
COLD = 1
"""Places in ``Knowledge.weights``: tau, negative where it is computed; K."""

WINDOW = 1000
"""Durations remembered of each kind."""
DELAYS = 100
"""Queueing delays remembered."""
SEEN = 0
RECENT = 1
ORDERED = RECENT + WINDOW
ROW = ORDERED + WINDOW
"""Places in a row of ``Knowledge.table``, one a kind and one for all: durations seen; the last ones as they came, a
ring; the same in ascending order."""

N, SUM_K, SUM_M, SUM_KK, SUM_MM, SUM_KM = range(6)
"""Places in ``Knowledge.memory``: sums over turns k, with m turns to go, of workflows that have ended."""
DELAYED = 6
TOTAL = 7
FIRST_DELAY = 8
MEMORY = FIRST_DELAY + DELAYS
"""Delays seen, the sum of the last ones, and these themselves, a ring."""

LAST_END = 0
LAST_KIND = 1
TURNS = 2
PINNED_BY = 3
LAST_CALL = 4
COLUMNS = 5
"""Places in ``Knowledge.programs``: when the last call ended; one more than its kind, 0 once the next call has come;
calls ended; one more than the call that pinned last; one more than the call that ended last."""

PINNED_FIRST = -1e9
"""Added to a workflow's arrival where it finds its contents pinned."""


@kernel
def observe(row, seconds):
    """Add a duration to a row of the table."""
    known = min(int(row[SEEN]), WINDOW)
    place = int(row[SEEN]) % WINDOW
    if known == WINDOW:
        # The oldest one goes: the larger ones close up.
        k = 0
        while row[ORDERED + k] != row[RECENT + place]:
            k += 1
        for j in range(k, known - 1):
            row[ORDERED + j] = row[ORDERED + j + 1]
        known -= 1
    k = known
    while k > 0 and row[ORDERED + k - 1] > seconds:
        row[ORDERED + k] = row[ORDERED + k - 1]
        k -= 1
    row[ORDERED + k] = seconds
    row[RECENT + place] = seconds
    row[SEEN] += 1.0


@kernel
def best_ttl(ordered, known, benefit):
    """``argmax P(tau) * benefit - tau`` over 0 and the first ``known`` durations of ``ordered``, which ascend."""
    tau = 0.0
    best = 0.0
    for k in range(known):
        if k + 1 < known and ordered[k + 1] == ordered[k]:
            continue
        score = (k + 1) / known * benefit - ordered[k]
        if score > best:
            best = score
            tau = ordered[k]
    return tau


@kernel
def cold_ttl(delay, reload):
    """The best tau for exponential gaps of mean 1: where the benefit's derivative ``exp(-tau) (T + R)`` is 1."""
    return max(0.0, math.log(delay + reload)) if delay + reload > 0.0 else 0.0


@kernel
def out_of_order(memory):
    """eta: minus the correlation of turns done and turns to go; 1 where there is none yet."""
    n = memory[N]
    covariance = n * memory[SUM_KM] - memory[SUM_K] * memory[SUM_M]
    spread = (n * memory[SUM_KK] - memory[SUM_K] ** 2) * (n * memory[SUM_MM] - memory[SUM_M] ** 2)
    return -covariance / math.sqrt(spread) if spread > 0.0 else 1.0


@kernel
def count_turns(memory, turns):
    """A workflow of so many turns has ended."""
    memory[N] += turns
    memory[SUM_K] += turns * (turns + 1.0) / 2.0
    memory[SUM_M] += turns * (turns - 1.0) / 2.0
    squares = turns * (turns + 1.0) * (2.0 * turns + 1.0) / 6.0
    memory[SUM_KK] += squares
    memory[SUM_MM] += turns * (turns - 1.0) * (2.0 * turns - 1.0) / 6.0
    memory[SUM_KM] += turns * turns * (turns + 1.0) / 2.0 - squares


@kernel
def ttl(know, kind, delay, reload):
    """tau* for what follows a call of this kind."""
    everything = know.table.shape[0] - 1
    cold = know.weights[COLD]
    if know.table[everything, SEEN] <= cold:
        return cold_ttl(delay, reload)
    row = kind if know.table[kind, SEEN] > cold else everything
    known = min(int(know.table[row, SEEN]), WINDOW)
    return best_ttl(know.table[row, ORDERED:], known, delay * out_of_order(know.memory) + reload)


@kernel
def mean_delay(memory):
    """T, seconds."""
    return memory[TOTAL] / max(min(memory[DELAYED], float(DELAYS)), 1.0)


@kernel
def _delayed(memory, seconds):
    place = FIRST_DELAY + int(memory[DELAYED]) % DELAYS
    memory[TOTAL] += seconds - memory[place]
    memory[place] = seconds
    memory[DELAYED] += 1.0


@kernel
def place(sim, know, r, now):
    """Where its workflow's contents are pinned, before the others; else least loaded, by the workflow's arrival."""
    stage = sim.stage[r]
    program = know.programs[stage.workflow]
    if program[LAST_KIND] > 0.0:
        observe(know.table[int(program[LAST_KIND]) - 1], now - program[LAST_END])
        observe(know.table[know.table.shape[0] - 1], now - program[LAST_END])
        program[LAST_KIND] = 0.0
    stage.priority = sim.workflow[stage.workflow].arrival
    stage.urgency = 0.0
    by = int(program[PINNED_BY]) - 1
    if by >= 0 and sim.stage[by].node != NONE and takes(sim, r, sim.stage[by].instance):
        stage.priority += PINNED_FIRST
        return sim.stage[by].instance
    # Its contents are gone, or it has had none: what it waits is T's only where it had some.
    stage.urgency = 1.0 if program[TURNS] > 0.0 else 0.0
    last = int(program[LAST_CALL]) - 1
    if last >= 0 and sim.stage[last].on_host > 0 and takes(sim, r, sim.stage[last].instance):
        return sim.stage[last].instance
    return first_fitting(sim, r, least_loaded_for_its_speed(sim, know))


@kernel
def ended(sim, know, r):
    """Learn from the call and, where it is the last, its workflow; pin its contents otherwise."""
    stage = sim.stage[r]
    program = know.programs[stage.workflow]
    program[LAST_END] = stage.finish
    program[LAST_KIND] = stage.kind + 1.0
    program[TURNS] += 1.0
    program[LAST_CALL] = r + 1.0
    if stage.urgency == 1.0:
        _delayed(know.memory, stage.start - stage.ready)
    if sim.workflow[stage.workflow].stages_left == 0:
        count_turns(know.memory, program[TURNS])
        return r
    tau = know.weights[FIXED]
    if tau < 0.0:
        i = stage.instance
        reload = know.scale[i] * alone_seconds(
            know.coef[i], float(stage.prompt + stage.output), 0.0, 1.0, float(sim.instance[i].max_batched)
        )
        if stage.on_host > 0:
            reload = min(reload, copy_seconds(sim.instance[i], stage.on_host))
        tau = ttl(know, stage.kind, mean_delay(know.memory), reload)
    if tau > 0.0 and pin(sim, r, stage.finish + tau):
        program[PINNED_BY] = r + 1.0
    return r
