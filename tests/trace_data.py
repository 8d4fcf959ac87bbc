"""Where the tests find traces, and what prompts share by the definition of a prefix."""

import os
from pathlib import Path

import pytest

from hexopt.traces import Prefix

GOLDEN = Path(__file__).parent / "data" / "traces"


def shared_trace(name: str) -> Path:
    root = Path(os.environ.get("HEXOPT_SHARED") or Path(__file__).parents[2] / "shared")
    path = root / "traces" / name
    if not path.exists():
        pytest.skip(f"the public trace {name} is not on this machine (HEXOPT_SHARED/traces)")
    return path


def shared_tokens(one: tuple[Prefix, ...], other: tuple[Prefix, ...]) -> int:
    """Tokens two prompts share: equal segments from position zero, up to the first that one cuts short."""
    tokens = 0
    for a, b in zip(one, other, strict=False):
        if a.segment != b.segment:
            break
        tokens += min(a.tokens, b.tokens)
        if a.tokens != b.tokens:
            break
    return tokens
