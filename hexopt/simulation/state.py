"""The arrays that a simulation runs on.

One record a stage, a workflow, an instance: a record keeps what belongs together in one or two cache lines, and
Numba takes the whole state as a handful of arrays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NONE = -1
"""Index of nothing."""

MIXED, PREFILL, DECODE = 0, 1, 2
"""Roles of an instance: prefills and decodes, hands its calls over after their first token, takes such calls."""
OPEN, DRAINING, DOWN = 0, 1, 2
"""Whether an instance takes new calls; works off those that it has; has none and works not at all."""
TOOLS, TRANSIT, PINNED, LOADING = 0, 1, 2, 3
"""What a stage's timer means: its tools have ended; its KV has arrived at another instance; its pin expires; its KV is
back from host memory."""
FITS, AGGRESSIVE, CONSERVATIVE, PAST_FUTURE, TRUE_LENGTHS = 0, 1, 2, 3, 4
"""Rules by which an instance admits, see :mod:`hexopt.simulation.admission`."""

STAGE = np.dtype(
    [
        # The work, fixed.
        ("prompt", "i4"),
        ("output", "i4"),
        ("kind", "i4"),
        ("workflow", "i4"),
        ("occurrence", "i4"),
        ("first_child", "i4"),
        ("children", "i4"),
        ("leaf", "i4"),
        ("tool_delay", "f8"),
        # Told by the client, 0 where it is not: output tokens; whether nothing of the workflow follows.
        ("told_output", "i4"),
        ("told_final", "i4"),
        # Decided by the policy.
        ("priority", "f8"),
        ("expected_output", "f8"),
        ("expected_new", "f8"),
        ("tail", "f8"),
        ("urgency", "f8"),
        ("instance", "i4"),
        ("decode_at", "i4"),
        # On the instance.
        ("parents_left", "i4"),
        ("computed", "i4"),
        ("generated", "i4"),
        ("held", "i4"),
        ("credited", "i4"),
        ("node", "i4"),
        ("diverged", "i4"),
        ("scheduled", "i4"),
        ("left", "i4"),
        ("right", "i4"),
        ("next_here", "i4"),
        ("previous_here", "i4"),
        ("sequence", "i8"),
        # Between instances: tokens of KV that come along to the next admission, blocks promised there, the timer.
        ("brought", "i4"),
        ("reserved", "i4"),
        ("bound", "i4"),
        ("errand", "i4"),
        ("timer", "f8"),
        # Tokens whose KV the instance's host memory holds.
        ("on_host", "i4"),
        # On the move while it runs: stages of the copy begun, tokens that they copy, blocks allocated at the
        # destination, when the present stage is over.
        ("copies", "i4"),
        ("copied", "i4"),
        ("allocated", "i4"),
        ("copy_end", "f8"),
        # What happened.
        ("ready", "f8"),
        ("start", "f8"),
        ("first_token", "f8"),
        ("finish", "f8"),
        ("cached", "i4"),
        ("preemptions", "i4"),
        ("prefill_instance", "i4"),
        ("handed", "f8"),
        ("moved_seconds", "f8"),
        ("lost", "i4"),
        ("migrations", "i4"),
    ]
)
"""``prefill_instance`` and ``handed``: where and when a call got its first token, where it was handed over after it;
``moved_seconds``: how long its KV was on its way between instances while it did not run; ``lost``: how often its
instance failed it; ``migrations``: how often it moved while it ran."""

INDICES = (
    *("leaf", "node", "instance", "decode_at", "prefill_instance"),
    *("left", "right", "next_here", "previous_here"),
)
"""Fields of STAGE that are NONE where there is nothing."""

WORKFLOW = np.dtype(
    [
        ("arrival", "f8"),
        ("deadline", "f8"),
        ("weight", "f8"),
        ("finish", "f8"),
        ("first_stage", "i4"),
        ("stages", "i4"),
        ("stages_left", "i4"),
        ("tenant", "i4"),
    ]
)
"""``arrival``, ``deadline`` and ``finish`` are absolute seconds; ``finish`` is NaN until the workflow has ended."""

INSTANCE = np.dtype(
    [
        # Configuration.
        ("gpu", "i4"),
        ("block_size", "i4"),
        ("blocks", "i4"),
        ("max_seqs", "i4"),
        ("max_batched", "i4"),
        ("max_len", "i4"),
        ("by_priority", "i4"),
        ("preempted_first", "i4"),
        ("prefix_caching", "i4"),
        ("serial", "i4"),
        ("role", "i4"),
        ("state", "i4"),
        ("ordered", "i4"),
        # The step that runs.
        ("busy", "i4"),
        ("touched", "i4"),
        ("jump", "i4"),
        ("decodes", "i4"),
        ("step_start", "f8"),
        ("next_event", "f8"),
        ("decode_context", "f8"),
        # Queues and memory.
        ("running", "i4"),
        ("waiting", "i4"),
        ("waiting_root", "i4"),
        ("first_here", "i4"),
        ("free", "i4"),
        ("promised", "i4"),
        ("reserved", "i4"),
        ("lru_front", "i4"),
        ("lru_back", "i4"),
        ("lru_spare", "i4"),
        # Pins, linked by ``next_here``; one more than the call that moves away; calls that have moved here and wait
        # for a seat, linked by ``right``. Firsts and lasts mean something where the number is not 0.
        ("pinned", "i4"),
        ("first_pinned", "i4"),
        ("moving", "i4"),
        ("joining", "i4"),
        ("first_joining", "i4"),
        ("last_joining", "i4"),
        ("next_sequence", "i8"),
        ("front_sequence", "i8"),
        # Totals.
        ("steps", "i8"),
        ("computed_tokens", "i8"),
        ("cached_tokens", "i8"),
        ("preemptions", "i8"),
        ("finished", "i8"),
        ("lost", "i8"),
        ("busy_seconds", "f8"),
        ("block_seconds", "f8"),
        ("down_since", "f8"),
        ("down_seconds", "f8"),
        # Host memory: what a copy costs, the switches, what is there and under way.
        ("kv_bytes", "f8"),
        ("copy_parts", "i4"),
        ("call_seconds", "f8"),
        ("byte_seconds", "f8"),
        ("host_blocks", "i4"),
        ("host_group", "i4"),
        ("host_overlap", "i4"),
        ("host_reuse", "i4"),
        ("host_keep", "i4"),
        ("host_used", "i4"),
        ("loading", "i4"),
        ("stall", "f8"),
        ("link_free", "f8"),
        ("swapped_out", "i8"),
        ("swapped_in", "i8"),
        ("copy_seconds", "f8"),
        ("stall_seconds", "f8"),
        # Admission by a rule, and what it remembers.
        ("admission", "i4"),
        ("check_every", "i4"),
        ("max_prefill", "i4"),
        ("max_new", "i4"),
        ("window", "i4"),
        ("share", "f8"),
        ("since_check", "i4"),
        ("remembered", "i4"),
        ("oldest", "i4"),
        ("lists", "i4"),
        ("listed", "i4"),
        ("committed", "f8"),
        # Priorities that are drawn anew.
        ("redraw_every", "i4"),
        ("redraw_keep", "f8"),
        ("since_redraw", "i4"),
        ("generator", "u8"),
    ]
)
"""``ordered`` is the state that the last event asked for; ``kv_bytes`` of a token and ``copy_parts`` (layers times two)
are one GPU's; ``share`` is of the memory that the admission rule may fill; ``generator`` the state of the instance's
random numbers."""

NODE = np.dtype([("parent", "i4"), ("end", "i4")])
"""Content tree: ``end`` is the number of tokens from position zero to the node's end; parents come first."""

NODE_HERE = np.dtype([("cached", "i4"), ("holders", "i4"), ("entry", "i4")])
"""A node on one instance: blocks cached, running stages that use it, its entry in the free queue."""

ENTRY = np.dtype([("previous", "i4"), ("next", "i4"), ("node", "i4"), ("blocks", "i4")])
"""One entry of an instance's queue of free blocks; ``node`` is NONE for anonymous blocks."""

EVENT = np.dtype([("when", "f8"), ("instance", "i4"), ("state", "i4")])
"""From second ``when`` on an instance is OPEN, DRAINING or DOWN."""

CLOCK = np.dtype(
    [
        ("now", "f8"),
        ("next_workflow", "i8"),
        ("next_event", "i8"),
        ("delayed", "i8"),
        ("ready", "i8"),
        ("ready_done", "i8"),
        ("stages_left", "i8"),
        ("decisions", "i8"),
        ("decision_cycles", "i8"),
        # Between the event loop and a planner that holds stages.
        ("wake", "f8"),
        ("tick", "f8"),
        ("held", "i8"),
        ("planned", "i8"),
        ("landed", "i8"),
    ]
)
"""The event loop's own record; shape (1,). ``wake`` is when a planner wants to be asked again, ``tick`` when a rule's
controller is due, infinite: not at all; ``held`` how many stages a planner holds; ``planned`` whether it was asked at
this instant; ``landed`` how many calls' KV arrived at it."""


class Simulation(NamedTuple):
    """Everything that a run reads and writes; n stages, w workflows, m instances, k nodes."""

    stage: NDArray[np.void]
    """STAGE, shape (n,), the stages of a workflow side by side, parents first."""
    child: NDArray[np.int32]
    """Stage indices, shape (number of edges,); stage r's are at first_child .. first_child + children."""
    workflow: NDArray[np.void]
    """WORKFLOW, shape (w,), by arrival."""
    instance: NDArray[np.void]
    """INSTANCE, shape (m,)."""
    coef: NDArray[np.float64]
    """Roofline coefficients, shape (m, N_FEATURES), seconds: the truth that the engines run on."""
    running: NDArray[np.int32]
    """Stage indices in running-list order, shape (m, largest max_seqs)."""
    node: NDArray[np.void]
    """NODE, shape (k,)."""
    here: NDArray[np.void]
    """NODE_HERE, shape (m, k)."""
    entry: NDArray[np.void]
    """ENTRY, shape (m, most entries)."""
    path: NDArray[np.int32]
    """Scratch for one root-to-leaf path, shape (deepest path,)."""
    delayed: NDArray[np.int32]
    """Binary heap of stages by ``timer``; shape (n,). A stage has at most one timer at a time."""
    link_latency: NDArray[np.float64]
    """Seconds before the first byte of KV arrives from instance to instance, shape (m, m)."""
    link_seconds: NDArray[np.float64]
    """Seconds that a token's KV takes from instance to instance, shape (m, m)."""
    event: NDArray[np.void]
    """EVENT, shape (number of events,), by time: what happens to instances."""
    ready: NDArray[np.int32]
    """Stages ready at this instant, shape (n,): filled and emptied by the event loop."""
    history: NDArray[np.int32]
    """Output lengths that an instance remembers, in the order of their ends and sorted; shape (m, 2, window)."""
    forecast: NDArray[np.int32]
    """Scratch for an admission's samples, shape (2 * LISTS, most calls): tokens held and tokens to come, of each."""
    clock: NDArray[np.void]
    """CLOCK, shape (1,)."""
