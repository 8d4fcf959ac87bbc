"""Frozen profiles of step times: a CSV and its provenance as JSON for each (GPU type, LLM, parallelism)."""
