"""Rules that know the truth: every call's output length, and all calls of the workflow to come.

No scheduler can have this. What it gains over the same rule with learned expectations is what better prediction could
gain at most *with that rule*; no bound on other rules.

- ``order=remaining``: ``shortest-remaining`` with the true remaining critical path;
- ``order=laxity``: ``llf`` with the true service and tail;
- ``order=urgency``: ``greedy-urgency`` with both.

Assumed: the remaining critical path is that on the mean instance without company, tool times included: what tails are
learned from, too.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.policies import deadline, greedy_urgency
from hexopt.policies.compiled import first_fitting
from hexopt.policies.knowledge import alone_seconds
from hexopt.policies.shortest_remaining import by_remaining
from hexopt.simulation.handover import freest_decoder

REMAINING = 0
LAXITY = 1
URGENCY = 2
ORDERS = ("remaining", "laxity", "urgency")
ORDER = 4
"""Place in ``Knowledge.weights``, behind greedy urgency's."""
_FORESEEN = 0
"""Place in ``Knowledge.programs``: whether the tails of the workflow's calls have been written."""


@kernel
def _foresee(sim, know, w):
    """Write the true tail into the record of every call of workflow ``w``."""
    workflow = sim.workflow[w]
    budget = sim.instance[0].max_batched
    for k in range(workflow.first_stage + workflow.stages - 1, workflow.first_stage - 1, -1):
        stage = sim.stage[k]
        stage.tail = 0.0
        for c in range(stage.first_child, stage.first_child + stage.children):
            child = sim.stage[sim.child[c]]
            service = alone_seconds(know.mean_coef, child.prompt, 0, child.output, budget)
            stage.tail = max(stage.tail, child.tool_delay + service + child.tail)


@kernel
def place(sim, know, r, now):
    """As the rule of the chosen order, with the truth for its expectations."""
    stage = sim.stage[r]
    if know.programs[stage.workflow, _FORESEEN] == 0.0:
        know.programs[stage.workflow, _FORESEEN] = 1.0
        _foresee(sim, know, stage.workflow)
    stage.expected_output = stage.output
    if know.weights[ORDER] == REMAINING:
        i = by_remaining(sim, know, r)
    elif know.weights[ORDER] == LAXITY:
        i = deadline.place_llf(sim, know, r)
    else:
        i = greedy_urgency.place(sim, know, r, now)
    return first_fitting(sim, r, i)


@kernel
def handed(sim, know, r, now):
    """Greedy urgency's choice of the decode instance in its order; the freest one in the others."""
    if know.weights[ORDER] == URGENCY:
        return greedy_urgency.handed(sim, know, r, now)
    return freest_decoder(sim, r)
