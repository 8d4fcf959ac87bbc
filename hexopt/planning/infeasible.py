"""Why no fleet keeps the promise, and the smallest change that would let one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hexopt.planning.demand import Demand
from hexopt.planning.fleet import Limits, Option
from hexopt.planning.search import NoFleetError, Search
from hexopt.planning.work import sizes_of
from hexopt.simulation.experiment import critical_paths
from hexopt.simulation.metrics import scale_at


def check_possible(demand: Demand, options: Sequence[Option], target: float) -> None:
    """Refuse what no number of instances can do: calls longer than every context, workflows longer than their deadline.

    Raises
    ------
    NoFleetError
        With the numbers.
    """
    if not options:
        raise NoFleetError("nothing is on offer that can serve the LLM: no GPU of the catalogue holds it")
    context = max(option.instance.max_model_len for option in options)
    if demand.longest > context:
        raise NoFleetError(f"a call has {demand.longest} tokens, but the longest context of any option is {context}")
    coef = np.array([option.instance.coef for option in options])
    budgets = np.array([float(option.instance.max_num_batched_tokens) for option in options])
    alone, _, _ = critical_paths(demand.workload, coef, budgets, sizes_of(demand).cached)
    for s, service in enumerate(demand.services):
        own = demand.service == s
        possible = float((alone[own] <= demand.deadline[own]).mean())
        if possible < target:
            # The deadline that stretches as far as it must for enough of them.
            stretch = scale_at(alone[own] / demand.deadline[own], target)
            raise NoFleetError(
                f"workload {service.name!r}: only {possible:.1%} of the workflows could end in time even alone on the "
                f"fastest instance for each call, with all that can be cached; {target:.4g} of them need a deadline of "
                f"{stretch * float(demand.deadline[own].max()):.3g} s (it is {float(demand.deadline[own].max()):.4g} s)"
            )


def explain(search: Search, limits: Limits, proven: bool) -> str:
    """Why ``search`` found nothing within ``limits``: which of them binds, and what would do.

    A number is called needed where the model proves it, and enough where a simulated fleet does.

    Parameters
    ----------
    proven
        Whether it is certain that there is nothing.
    """
    free = Limits({gpu: replace(offer, max=None) for gpu, offer in limits.offers.items()}, spot_share=limits.spot_share)
    said = [_best(search)] if search.rounds else []
    if math.isfinite(limits.budget):
        said += _without(search, replace(limits, budget=math.inf), "budget", limits)
    for gpu, offer in limits.offers.items():
        if offer.max is not None:
            offers = {**limits.offers, gpu: replace(offer, max=None)}
            said += _without(search, replace(limits, offers=offers), gpu, limits)
    limited = [gpu for gpu, offer in limits.offers.items() if offer.max is not None]
    if len(said) == bool(search.rounds) and (len(limited) > 1 or (limited and math.isfinite(limits.budget))):
        said += _without(search, free, "", limits)
    if not proven:
        effort = f"{search.question.seconds:.4g} s and {len(search.rounds)} rounds"
        said.insert(0, f"none was found in {effort}, with more there may be one")
    return "; ".join(said) or "none does, however large: the deadline is too near for the queues"


def _best(search: Search) -> str:
    best = max(search.rounds, key=lambda r: r.attainment)
    return (
        f"the best of {len(search.rounds)} fleets simulated reaches {best.attainment:.2%} for {best.cost:.2f} an hour"
    )


def _without(search: Search, wider: Limits, what: str, limits: Limits) -> list[str]:
    """What would do if ``what`` were not limited: the budget, a GPU type, or (empty) anything."""
    other = Search(search.prover, wider, search.question, search.factor, search.on_round, dict(search.refuted))
    least = other.model().fewest(what) if what in limits.offers else None
    try:
        plan = other.cheapest()
    except NoFleetError as error:
        limit = "the limits" if not what else f"the limit on {what}"
        return [] if error.proven else [f"whether one would without {limit} was not found out in that time"]
    if what == "budget":
        return [
            f"the budget binds: {plan.cost:.2f} an hour is enough, {plan.bound:.2f} is needed "
            f"(it is {limits.budget:.2f})"
        ]
    if what:
        used = sum(n * o.gpus for n, o in zip(plan.fleet, search.options, strict=True) if o.gpu == what and o.buyable)
        needed = "" if least is None else f", at least {least} are needed"
        return [f"the number of {what} binds: {used} are enough{needed} (there are {limits.offers[what].max})"]
    return [f"the limits bind together: without them {plan.cost:.2f} an hour is enough"]
