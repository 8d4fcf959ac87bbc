"""What rules predict alike: seconds of prefills beside decodes, tokens that a call has before it."""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.models.roofline import step_seconds


@kernel
def prefill_seconds(coef, new, done, budget, decodes, context):
    """Seconds by which prefilling ``new`` tokens behind ``done`` lengthens the steps of the given decodes."""
    if new <= 0.0:
        return 0.0
    room = max(budget - decodes, 1.0)
    steps = max(new / room, 1.0)
    chunk = new / steps
    mixed = step_seconds(coef, 1.0, chunk, chunk * (done + new / 2.0), done + new / 2.0, decodes, context)
    return steps * mixed


@kernel
def tokens_left(there):
    """Output tokens that a call on an instance is expected to have before it; never none, however long it is."""
    return max(there.expected_output - there.generated, 0.15 * there.expected_output + 1.0)
