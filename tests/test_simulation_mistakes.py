import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_workload import RATE, random_experiment

from hexopt.models.lengths import expected_output
from hexopt.policies.policy import GreedyUrgency
from hexopt.simulation.mistakes import Mistakes, noise
from hexopt.simulation.simulator import fleet_of


def setting(seed=0):
    experiment = random_experiment(seed, 20)
    return experiment, *experiment.sample(40, RATE, 0)


def told(experiment, picks, arrivals, mistakes, policy=None):
    return experiment.run(policy or GreedyUrgency(), picks, arrivals, mistakes=mistakes)


def same(one, other):
    return all(
        np.array_equal(a, b, equal_nan=True) for f in ("start", "finish") for a, b in [(one.stage[f], other.stage[f])]
    )


@given(st.floats(0.0, 1.0), st.integers(0, 1000))
def test_noise_has_mean_one_and_the_spread_that_is_asked_for(error, seed):
    factors = noise(np.random.default_rng(seed), 4000, error)
    assert factors.mean() == pytest.approx(1.0, abs=5.0 * np.expm1(error**2) ** 0.5 / 4000**0.5 + 1e-9)
    assert np.log(factors).std() == pytest.approx(error, abs=0.06 * error + 1e-9)


def test_believed_speeds_differ_by_gpu_type_and_repeat():
    experiment, *_ = setting()
    fleet = fleet_of(experiment.cluster)
    assert Mistakes(output_error=0.5).believed(fleet) is fleet
    believed = Mistakes(speed_error=0.3, seed=4).believed(fleet).coef
    factor = believed.sum(axis=1) / fleet.coef.sum(axis=1)
    assert believed == pytest.approx(factor[:, None] * fleet.coef)
    for gpu in set(fleet.gpus):
        assert np.ptp(factor[np.array(fleet.gpus) == gpu]) == pytest.approx(0.0, abs=1e-12)
    again = Mistakes(speed_error=0.3, seed=4).believed(fleet).coef
    assert np.array_equal(again, Mistakes(speed_error=0.3, seed=4).believed(fleet).coef)
    assert not np.array_equal(again, Mistakes(speed_error=0.3, seed=5).believed(fleet).coef)


def test_no_mistakes_change_nothing_and_mistakes_are_the_policys_alone():
    experiment, picks, arrivals = setting()
    plain = told(experiment, picks, arrivals, None)
    assert same(plain, told(experiment, picks, arrivals, Mistakes()))
    wrong = Mistakes(output_error=1.0, shuffled_lengths=True, speed_error=0.5)
    misled = told(experiment, picks, arrivals, wrong)
    assert not same(plain, misled) and same(misled, told(experiment, picks, arrivals, wrong))
    assert np.array_equal(misled.stage["output"], plain.stage["output"])
    assert np.isfinite(misled.workflow["finish"]).all()


def test_predictions_are_those_of_the_other_call_times_the_noise(monkeypatch):
    """Every prediction of a run, against the arrays that it was made from."""
    experiment, picks, arrivals = setting()
    mistakes = Mistakes(output_error=0.7, shuffled_lengths=True, seed=9)
    misled = []
    believed = Mistakes.misled
    monkeypatch.setattr(Mistakes, "misled", lambda self, know, n: misled.append(believed(self, know, n)) or misled[0])
    run = experiment.run(GreedyUrgency(), picks[:1], arrivals[:1], mistakes=mistakes)
    know, n = misled[0], run.stage.shape[0]
    assert sorted(know.taken_for) == list(range(n)) and know.length_noise.shape == (n,)
    first = int(np.argmin(run.stage["ready"]))
    other = run.stage[know.taken_for[first]]
    # Nothing was learned yet when the first call became ready.
    fresh = experiment.training.lengths
    expected = expected_output(fresh, other["kind"], other["prompt"]) * know.length_noise[first]
    assert run.stage["expected_output"][first] == pytest.approx(expected)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="output_error is -1"):
        Mistakes(output_error=-1.0)
    with pytest.raises(ValueError, match="speed_error is inf"):
        Mistakes(speed_error=np.inf)
