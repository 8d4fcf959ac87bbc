"""Many simulations at once: on this machine's processors, or on a Ray cluster, with the same results bit for bit."""

from hexopt.parallel.errors import ParallelError
from hexopt.parallel.runner import Runner

__all__ = ["ParallelError", "Runner"]
