"""Policies by name, as flags and files give them."""

from __future__ import annotations

import dataclasses

from hexopt.policies.classical import ApparentTardiness, Clairvoyant, Heft, ShortestRemaining, WorkflowFcfs
from hexopt.policies.fastswitch import FastSwitch
from hexopt.policies.past_future import PastFuture
from hexopt.policies.policy import (
    EarliestDeadline,
    GreedyUrgency,
    HexGenFlow,
    LeastLaxity,
    LeastLoaded,
    Policy,
    RoundRobin,
)
from hexopt.policies.published import (
    AgentMath,
    AutellixAtlas,
    AutellixPlas,
    Continuum,
    Hexagent,
    Infaas,
    Justitia,
    Llumnix,
    Qlm,
)
from hexopt.policies.rolling_horizon import RollingHorizon

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy
    for policy in (
        RoundRobin,
        LeastLoaded,
        HexGenFlow,
        EarliestDeadline,
        LeastLaxity,
        GreedyUrgency,
        RollingHorizon,
        WorkflowFcfs,
        ShortestRemaining,
        ApparentTardiness,
        Heft,
        Infaas,
        Llumnix,
        AutellixPlas,
        AutellixAtlas,
        AgentMath,
        Continuum,
        Justitia,
        Hexagent,
        Qlm,
        PastFuture,
        FastSwitch,
        Clairvoyant,
    )
}
"""Every policy by its name."""
LIVE = tuple(name for name, policy in POLICIES.items() if policy.live)
"""Names of those that a gateway can decide by."""


class PolicyError(ValueError):
    """An unknown policy, or a parameter that it does not take."""


def make_policy(text: str) -> Policy:
    """The policy that ``text`` names: ``greedy-urgency`` or ``hexgen-flow:alpha=0.3,as_shipped=true``.

    Raises
    ------
    PolicyError
        Naming what is unknown or out of range, and what there is.
    """
    name, _, rest = text.partition(":")
    policy = POLICIES.get(name)
    if policy is None:
        raise PolicyError(f"policy {name!r} is unknown; there are {', '.join(POLICIES)}")
    fields = {f.name: f for f in dataclasses.fields(policy)}
    values: dict[str, float | bool | str] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if key not in fields or not equals:
            takes = ", ".join(fields) or "no parameters"
            raise PolicyError(f"policy {name!r}: {item!r} is not a parameter=value; it takes {takes}")
        default = fields[key].default
        values[key] = value if isinstance(default, str) else _parsed(name, key, value, isinstance(default, bool))
    return policy(**values)


def make_live_policy(text: str) -> Policy:
    """As :func:`make_policy`, for the live service.

    Raises
    ------
    PolicyError
        Also where the policy knows what a gateway cannot, or is asked what it is not told.
    """
    policy = make_policy(text)
    if not policy.live:
        raise PolicyError(f"policy {policy.name!r} is for simulations only; the service takes {', '.join(LIVE)}")
    return policy


def _parsed(policy: str, key: str, value: str, boolean: bool) -> float | bool:
    if boolean:
        if value.lower() in {"true", "false"}:
            return value.lower() == "true"
        raise PolicyError(f"policy {policy!r}: {key} is {value!r}, expected true or false")
    try:
        number = float(value)
    except ValueError:
        raise PolicyError(f"policy {policy!r}: {key} is {value!r}, expected a number") from None
    if not 0.0 <= number <= (1.0 if key == "alpha" else 1e6):
        raise PolicyError(f"policy {policy!r}: {key} is {value}, expected 0 to {1 if key == 'alpha' else '1e6'}")
    return number
