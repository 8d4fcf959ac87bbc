"""Which prefill and which decode instance, in what order? Arrays in, plan out.

A :class:`PairProblem` says what may go where, :func:`judge_pairs` what a plan costs, :func:`solve_pairs` finds one.
``docs/formulation.md``, section "Pairs", holds the mathematics.
"""

from hexopt.solvers.pairs.annealing import anneal_pairs
from hexopt.solvers.pairs.bounds import alone_bound
from hexopt.solvers.pairs.cpsat import cpsat_pairs
from hexopt.solvers.pairs.insertion import greedy_pairs
from hexopt.solvers.pairs.judge import judge_pairs
from hexopt.solvers.pairs.lagrangian import lower_bound_pairs
from hexopt.solvers.pairs.plan import PairEvaluation, PairPlan
from hexopt.solvers.pairs.problem import PairProblem
from hexopt.solvers.pairs.solve import PAIR_SOLVERS, solve_pairs

__all__ = [
    "PAIR_SOLVERS",
    "PairEvaluation",
    "PairPlan",
    "PairProblem",
    "alone_bound",
    "anneal_pairs",
    "cpsat_pairs",
    "greedy_pairs",
    "judge_pairs",
    "lower_bound_pairs",
    "solve_pairs",
]
