"""Objective weights that fit a workload: found by simulation, claimed where they win on traffic not searched on."""

from hexopt.tuning.goals import GOALS, Figures
from hexopt.tuning.scenario import Scenario
from hexopt.tuning.tune import Settings, TuningError, TuningReport, tune

__all__ = ["GOALS", "Figures", "Scenario", "Settings", "TuningError", "TuningReport", "tune"]
