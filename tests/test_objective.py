"""Presets and weights of the objective."""

from __future__ import annotations

import numpy as np
import pytest
from random_workload import small_cluster
from test_scheduler import FROZEN, chains

from hexopt.objective import PRESETS, WEIGHTS, ObjectiveError, hexgen_flow, make_objective
from hexopt.simulation.experiment import Experiment


def test_presets_differ_and_are_made_by_their_names():
    assert len({repr(p) for p in PRESETS.values()}) == len(PRESETS)
    for name, preset in PRESETS.items():
        assert make_objective(name) == preset


def test_weights_after_a_colon_and_in_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('preset = "attainment"\nprice = 2\nlost = 0.3\n')
    assert make_objective(str(path)) == make_objective("attainment:price=2,lost=0.3")
    changed = make_objective("deadline:" + ",".join(f"{name}=0.5" for name in WEIGHTS))
    assert changed.urgency == changed.lost == 0.5
    assert {getattr(changed.weights, name) for name in WEIGHTS if name not in ("urgency", "lost")} == {0.5}
    assert make_objective("hexgen-flow:alpha=0.7") == hexgen_flow(0.7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "objective 'fast' is unknown; there are deadline, attainment"),
        ("deadline:speed=1", "weight 'speed' is unknown; there are tardiness, late"),
        ("deadline:price", "'price' is not a weight=number"),
        ("deadline:price=much", "'price=much' is not a weight=number"),
        ("deadline:price=-1", "weight price is -1.0, expected a number of at least 0"),
        ("deadline:lost=2", "weight lost is 2.0, expected 0 to 1"),
        ("hexgen-flow:alpha=2", "alpha is 2.0, expected 0 to 1"),
        ("there-is-none.toml", "there-is-none.toml: there is no such file"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ObjectiveError, match=message):
        make_objective(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('preset = "x"', r"o\.toml: objective 'x' is unknown"),
        ('price = "high"', r"o\.toml: weight price is 'high', expected a number"),
        ("price", r"o\.toml: "),
    ],
)
def test_files_that_are_refused(tmp_path, content, message):
    path = tmp_path / "o.toml"
    path.write_text(content)
    with pytest.raises(ObjectiveError, match=message):
        make_objective(str(path))


def test_alpha_trades_own_speed_against_the_others():
    cluster = small_cluster(shortest=1 << 14, kv_tokens=1 << 17, max_num_seqs=64)
    experiment = Experiment.of(chains(1, 30), cluster)
    sample = experiment.sample(120, 6.0, 0)
    fast = []
    for alpha in (0.0, 0.5, 1.0):
        run = experiment.run(FROZEN.__class__(freeze=True, objective=f"hexgen-flow:alpha={alpha}"), *sample)
        fast.append(float(np.isin(run.stage["instance"], [1, 2]).mean()))
    assert fast[0] < fast[2] and fast[0] <= fast[1] <= fast[2]
    assert fast[2] > 0.9
