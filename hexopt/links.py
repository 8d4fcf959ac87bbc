"""How long KV takes from one instance to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEFAULT_BANDWIDTH = 25e9
"""Bytes a second where no link says otherwise: one InfiniBand HDR port of 200 Gbit/s."""


@dataclass(frozen=True, slots=True)
class Link:
    """What KV travels on between instances.

    Parameters
    ----------
    sender, receiver
        Name or GPU type of the instances at its ends, empty for any. One direction: that of the KV.
    bandwidth
        Bytes a second.
    latency
        Seconds before the first byte arrives.
    """

    sender: str = ""
    receiver: str = ""
    bandwidth: float = DEFAULT_BANDWIDTH
    latency: float = 0.0


def link_times(
    links: Sequence[Link], names: Sequence[str], gpus: Sequence[str], kv_bytes: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds before KV arrives from instance to instance, and seconds that a token's takes, both shape (m, m).

    Of the links that match a pair the last one holds; without one, a link with the default bandwidth.

    Parameters
    ----------
    names, gpus
        Name and GPU type of each instance.
    kv_bytes
        Bytes of KV cache a token on each instance, shape (m,): what the sender has is sent.
    """
    m = len(names)
    latency, bandwidth = np.zeros((m, m)), np.full((m, m), DEFAULT_BANDWIDTH)
    for link in links:
        sends = [link.sender in ("", name, gpu) for name, gpu in zip(names, gpus, strict=True)]
        receives = [link.receiver in ("", name, gpu) for name, gpu in zip(names, gpus, strict=True)]
        pairs = np.ix_(np.flatnonzero(sends), np.flatnonzero(receives))
        latency[pairs], bandwidth[pairs] = link.latency, link.bandwidth
    return latency, np.asarray(kv_bytes, dtype=np.float64)[:, None] / bandwidth
