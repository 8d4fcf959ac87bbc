"""Rules by which an instance admits waiting calls, instead of "it fits now".

Past-Future (arXiv 2507.10150, ASPLOS'25) forecasts the peak of the memory that the batch will need: calls that hold a_i
tokens and have b_i to come, sorted by b descending, need ``max_i (b_i * i + sum_{j <= i} a_j)``, for when call i ends
calls 1 to i are still there. The rule: docs/simulated-instance.md.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.simulation.generator import draw
from hexopt.simulation.state import AGGRESSIVE, CONSERVATIVE, LOADING, NONE, PAST_FUTURE, TRUE_LENGTHS

LISTS = 5
"""Most samples of a batch."""
SAMPLES = 200
"""Sampled lengths that suffice."""


@kernel
def rank(ordered, count, value):
    """How many of the first ``count`` of the ascending ``ordered`` are at most ``value``."""
    low = 0
    high = count
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def observe(sim, i, output):
    """Remember the output length of a call that has ended, and forget the oldest one beyond the window."""
    inst = sim.instance[i]
    ring = sim.history[i, 0]
    ordered = sim.history[i, 1]
    count = inst.remembered
    if count == inst.window:
        for k in range(rank(ordered, count, ring[inst.oldest]), count):
            ordered[k - 1] = ordered[k]
        count -= 1
        ring[inst.oldest] = output
        inst.oldest = (inst.oldest + 1) % inst.window
    else:
        ring[count] = output
    at = rank(ordered, count, output)
    for k in range(count, at, -1):
        ordered[k] = ordered[k - 1]
    ordered[at] = output
    inst.remembered = count + 1


@kernel
def still_to_come(ordered, count, generated, longest, u):
    """Tokens that a call of ``generated`` ones has to come: the quantile ``u`` of its length, given that it is longer.

    The support is ``generated``, the remembered lengths above it and ``longest``, with linear interpolation between
    neighbours.
    """
    first = rank(ordered, count, generated)
    above = count - first
    x = u * (above + 1)
    k = int(x)
    left = generated if k == 0 else ordered[first + k - 1]
    right = ordered[first + k] if k < above else max(longest, ordered[count - 1] if above > 0 else generated)
    return int(left + (right - left) * (x - k) + 0.5) - generated


@kernel
def insert(held, to_come, count, a, b):
    """Add a call to lists of ``count`` calls that are sorted by what is to come, descending."""
    k = count
    while k > 0 and to_come[k - 1] < b:
        to_come[k] = to_come[k - 1]
        held[k] = held[k - 1]
        k -= 1
    to_come[k] = b
    held[k] = a


@kernel
def future_peak(held, to_come, count):
    """The most tokens that these calls will hold at once, none of them ending early."""
    peak = 0
    held_before = 0
    for k in range(count):
        held_before += held[k]
        peak = max(peak, to_come[k] * (k + 1) + held_before)
    return peak


@kernel
def _enter(sim, i, r, arrives):
    """Count stage ``r`` in; ``arrives``: it is not in the batch yet."""
    inst = sim.instance[i]
    stage = sim.stage[r]
    # The last block of a call may be all but empty.
    tokens = stage.prompt + stage.generated + inst.block_size - 1
    if inst.admission == AGGRESSIVE:
        inst.committed += tokens
    elif inst.admission == CONSERVATIVE:
        inst.committed += tokens + max(inst.max_new - stage.generated, 1)
    elif inst.admission == TRUE_LENGTHS:
        insert(sim.forecast[0], sim.forecast[1], inst.listed, tokens, stage.output - stage.generated)
    else:
        for k in range(inst.lists):
            u = draw(sim, i)
            if arrives:
                b = sim.history[i, 0, (inst.oldest + int(u * inst.remembered)) % inst.window]
            else:
                b = still_to_come(sim.history[i, 1], inst.remembered, stage.generated, inst.max_new, u)
            insert(sim.forecast[2 * k], sim.forecast[2 * k + 1], inst.listed, tokens, b)
    inst.listed += 1


@kernel
def look(sim, i):
    """Begin a check: count in what the batch holds, and forecast what it will."""
    inst = sim.instance[i]
    inst.since_check = 0
    inst.committed = 0.0
    inst.listed = 0
    batch = inst.running + inst.loading
    inst.lists = 1
    if inst.admission == PAST_FUTURE and batch > 0:
        inst.lists = min(LISTS, SAMPLES // batch + 1)
    for k in range(inst.running):
        _enter(sim, i, sim.running[i, k], False)
    if inst.loading == 0:
        return
    other = inst.first_here
    while other != NONE:
        if sim.stage[other].errand == LOADING:
            _enter(sim, i, other, False)
        other = sim.stage[other].next_here


@kernel
def admits(sim, i, r):
    """Whether the rule lets stage ``r`` join the batch; an empty one takes every call."""
    inst = sim.instance[i]
    first = inst.listed == 0
    _enter(sim, i, r, True)
    if first:
        return True
    limit = inst.share * inst.blocks * inst.block_size
    if inst.admission == AGGRESSIVE or inst.admission == CONSERVATIVE:
        return inst.committed <= limit
    for k in range(inst.lists):
        if future_peak(sim.forecast[2 * k], sim.forecast[2 * k + 1], inst.listed) >= limit:
            return False
    return True
