"""The latency model: how wrong each regressor is, and what a prediction costs.

    python benchmarks/bench_latency_model.py

Errors are absolute relative ones over the 64 bundled profiles, on steps that were not trained on. Times are the median
of repeated blocks of calls; each regressor's is that of 256 steps at once, from sizes to seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hexopt.models.cells import load_cells
from hexopt.models.kernel import kernel
from hexopt.models.profiling.fitting import profile_features
from hexopt.models.profiling.frozen import COLUMNS, FrozenProfile
from hexopt.models.roofline import features, seconds, step_seconds
from hexopt.models.training import TrainingReport, load_profiles, train

ROWS = 256
CALLS = 1_000_000


@kernel
def _many(coef, sizes, calls):  # type: ignore[no-untyped-def]
    """Sum of ``calls`` scalar predictions, so that none can be left out."""
    total = 0.0
    for k in range(calls):
        s = sizes[k % sizes.shape[0]]
        total += step_seconds(coef, s[0], s[1], s[2], s[3], s[4], s[5])
    return total


def median_seconds(call: Callable[[], object], repeats: int = 15) -> float:
    """Median wall time of ``call`` after one that is not counted."""
    call()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def rows_of(profile: FrozenProfile, rows: int) -> FrozenProfile:
    """The first ``rows`` steps of a profile."""
    return replace(profile, **{name: getattr(profile, name)[:rows] for name in COLUMNS})


def errors(report: TrainingReport) -> None:
    """Print the errors of every regressor: mean over the cells, worst cell in brackets."""
    print("| regressor | MAPE % | P95 % | MAPE beyond the range % | P95 beyond % |\n|---|---|---|---|---|")
    for name in report.errors:
        mean, worst = report.mean(name), report.worst(name)
        cells = [
            f"{100 * getattr(mean, field):.1f} ({100 * getattr(worst, field):.1f})"
            for field in ("mape", "p95", "beyond_mape", "beyond_p95")
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def costs(report: TrainingReport) -> None:
    """Print what predictions cost."""
    profile = report.profiles[0]
    some = rows_of(profile, ROWS)
    matrix = profile_features(some)
    coef = load_cells()[profile.cell].raw_coef
    new, cached = some.prefill_tokens.astype(float), some.prefill_cached.astype(float)
    attention = new * (cached + new / 2) / np.maximum(some.n_prefill, 1)
    sizes = np.stack([some.n_prefill, new, attention, cached + new, some.n_decode, some.decode_context], axis=1).astype(
        float
    )
    print("\n| prediction | us |\n|---|---|")
    scalar = median_seconds(lambda: _many(coef, sizes, CALLS), 5) / CALLS
    print(f"| one step, compiled | {scalar * 1e6:.3f} |")
    for label, call in (
        ("features given", lambda: seconds(coef, matrix)),
        ("from sizes", lambda: seconds(coef, features(*sizes.T))),
    ):
        print(f"| {ROWS} steps, NumPy, {label} | {median_seconds(call, 101) * 1e6:.1f} |")
    for name, fitted in report.models.items():
        model = fitted[profile.cell]
        print(f"| {ROWS} steps, scikit-learn, {name} | {median_seconds(lambda m=model: m.predict(some)) * 1e6:,.0f} |")


def main() -> None:
    """Print the tables as Markdown."""
    report = train(load_profiles())
    errors(report)
    costs(report)


if __name__ == "__main__":
    main()
