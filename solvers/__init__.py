"""What is the best decision? Arrays in, plan out; nothing else is known here.

An :class:`EpochProblem` says what may go where, :func:`evaluate` what a plan costs; :func:`greedy` answers at once,
:func:`anneal` improves for as long as it is given. ``docs/formulation.md`` holds the mathematics.
"""

from hexopt.solvers.annealing import anneal
from hexopt.solvers.exact import exact
from hexopt.solvers.insertion import greedy
from hexopt.solvers.judge import evaluate
from hexopt.solvers.lagrangian import lower_bound
from hexopt.solvers.plan import HELD, Evaluation, Plan
from hexopt.solvers.portfolio import portfolio
from hexopt.solvers.problem import EpochProblem, ObjectiveWeights, ProblemError
from hexopt.solvers.registry import SOLVERS, solve

__all__ = [
    "HELD",
    "SOLVERS",
    "EpochProblem",
    "Evaluation",
    "ObjectiveWeights",
    "Plan",
    "ProblemError",
    "anneal",
    "evaluate",
    "exact",
    "greedy",
    "lower_bound",
    "portfolio",
    "solve",
]
