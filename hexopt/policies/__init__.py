"""Policies: where a ready call goes and how it queues there, asked by the simulator and the live service alike.

A policy is a :class:`Policy`; the built-in ones are compiled, one of your own overrides :meth:`Policy.place`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hexopt.policies.policy import (
        EarliestDeadline,
        Fleet,
        GreedyUrgency,
        HexGenFlow,
        LeastLaxity,
        LeastLoaded,
        Policy,
        RoundRobin,
        Training,
    )
    from hexopt.policies.registry import LIVE, POLICIES, PolicyError, make_live_policy, make_policy

__all__ = [
    "LIVE",
    "POLICIES",
    "EarliestDeadline",
    "Fleet",
    "GreedyUrgency",
    "HexGenFlow",
    "LeastLaxity",
    "LeastLoaded",
    "Policy",
    "PolicyError",
    "RoundRobin",
    "Training",
    "make_live_policy",
    "make_policy",
]
_REGISTRY = {"LIVE", "POLICIES", "PolicyError", "make_live_policy", "make_policy"}


def __getattr__(name: str) -> Any:
    # Imported when asked for: kernels of policies and of the simulation call each other.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hexopt.policies import policy, registry

    return getattr(registry if name in _REGISTRY else policy, name)
