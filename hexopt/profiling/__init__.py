"""Measure running model servers from outside, over their OpenAI-compatible interface.

:mod:`hexopt.profiling.measuring` takes the times, :mod:`hexopt.profiling.measurements` keeps them and tells which steps
of the engine they show.
"""
