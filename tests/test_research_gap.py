import json
import math
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from research_cases import made_results, shared_for, small
from solver_problems import best_by_trying_all, judged, random_plan, random_problem

from hexopt.policies.registry import make_policy
from hexopt.research.gap.effort import Effort, EffortError, contenders, effort_from
from hexopt.research.gap.library import INDEX, Entry, LibraryError, read_library, write_library
from hexopt.research.gap.outcome import outcomes, prices
from hexopt.research.gap.race import Known, better_of, gap, race
from hexopt.research.gap.recording import Task, record, sample
from hexopt.research.gap.sizes import Estimate, shares, size_class, size_label, stratified
from hexopt.research.gap.table import SEVERAL, GapRow, Problem, answer_rows, gap_rows
from hexopt.research.grid import Job
from hexopt.solvers import Plan, evaluate, greedy
from hexopt.solvers.files import problem_from, problem_table
from hexopt.solvers.spoiling import spoil

GREEDY = Effort("greedy")
QUICK = (GREEDY, Effort("annealing", moves=300), Effort("portfolio", limit_s=0.05))


def text_of(problem):
    return json.dumps(problem_table(problem), allow_nan=False)


@given(st.integers(1, 5000))
def test_sizes_are_classes_of_their_label(stages):
    ends = [int(part) for part in size_label(size_class(stages)).split(" to ")]
    assert ends[0] <= stages <= ends[-1] < 2 * ends[0]
    assert size_class(ends[0] - 1 or 1) <= size_class(stages) <= size_class(ends[-1] + 1)


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 40), min_size=1), st.integers(1, 100))
def test_shares_are_as_even_as_can_be(available, wanted):
    taken = shares(available, wanted)
    assert sum(taken.values()) == min(wanted, sum(available.values()))
    assert all(0 <= taken[k] <= there for k, there in available.items())
    short = [taken[k] for k, there in available.items() if taken[k] < there]
    if short:
        assert max(short) - min(short) <= 1 and max(taken.values()) <= max(short) + 1


def test_a_stratified_mean_is_unbiased_and_so_is_its_variance():
    """Over all samples that can be drawn: the mean of the means, and of the variances."""
    population = {0: [1.0, 5.0, 2.0, 9.0], 1: [30.0, 10.0, 14.0], 2: [7.0]}
    draws = [list(combinations(population[h], n)) for h, n in ((0, 2), (1, 2), (2, 1))]
    found = []
    for chosen in product(*draws):
        values = np.concatenate(chosen)
        stratum = np.repeat([0, 1, 2], [2, 2, 1])
        found.append(stratified(values, stratum, np.repeat([2.0, 1.5, 1.0], [2, 2, 1])))
    means = np.array([one.mean for one in found])
    everything = np.concatenate(list(population.values()))
    assert means.mean() == pytest.approx(everything.mean())
    assert np.mean([(one.half / 1.96) ** 2 for one in found]) == pytest.approx(means.var())
    whole = stratified(everything, np.zeros(8), np.ones(8))
    assert whole.mean == pytest.approx(everything.mean()) and whole.half == 0.0
    assert math.isnan(stratified([math.inf], [0], [1.0]).mean)


@pytest.mark.parametrize("text", ["greedy", "annealing:300", "annealing:20ms", "exact:1.5s", "spoiled:5%"])
def test_efforts_are_read_as_they_are_written(text):
    effort = effort_from(text, "--efforts")
    assert effort.label == text
    policy = make_policy(effort.policy("attainment"))
    assert (policy.freeze, policy.objective) == (True, "attainment")
    assert policy.solver == effort.solver and policy.spoil == effort.spoil
    assert policy.moves == (effort.moves or 300) and policy.time_limit == (effort.limit_s or 0.02)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "solver 'x' is unknown; there are greedy"),
        ("greedy:5", "greedy takes no limit"),
        ("exact", "expected a time such as exact:20ms"),
        ("exact:300", "expected a time such as exact:20ms"),
        ("annealing:0", "expected at least one move"),
        ("annealing:0ms", "expected moves a stage or a time"),
        ("spoiled:120%", "expected a gap below 100% such as spoiled:5%"),
    ],
)
def test_bad_efforts_are_named(text, message):
    with pytest.raises(EffortError, match=message) as error:
        effort_from(text, "--efforts")
    assert str(error.value).startswith("--efforts: ")


def test_contenders_are_solvers_times_limits():
    labels = [effort.label for effort in contenders(["greedy", "exact"], [0.005, 1.0])]
    assert labels == ["greedy", "exact:5ms", "exact:1s"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 0.9))
def test_spoiled_plans_are_worse_by_no_more_than_they_may(seed, share):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, int(rng.integers(1, 7)), int(rng.integers(1, 4)))
    plan = greedy(problem)
    found = spoil(problem, plan, share, seed=seed)
    assert found.objective == pytest.approx(judged(problem, found.instance, found.order)[0])
    assert found.objective >= plan.objective and gap(found.objective, plan.objective) <= share + 1e-9
    again = spoil(problem, plan, share, seed=seed)
    assert np.array_equal(found.instance, again.instance) and np.array_equal(found.order, again.order)
    if share == 0.0:
        assert found.objective == plan.objective
    with pytest.raises(ValueError, match="gap is 1"):
        spoil(problem, plan, 1.0)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_the_best_known_is_the_best(seed):
    """Against all plans of small problems; no bound is above them."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, int(rng.integers(1, 5)), 2, whole=True)
    raced = race(QUICK, text_of(problem))
    best = best_by_trying_all(problem)
    assert raced.known.objective == pytest.approx(best, rel=1e-6, abs=1e-9)
    assert raced.known.objective == min(answer.objective for answer in raced.answers)
    assert raced.known.bound == max(answer.bound for answer in raced.answers) <= best + 1e-6 * abs(best)
    assert [answer.effort for answer in raced.answers] == [effort.label for effort in QUICK]
    assert judged(problem, raced.known.instance, raced.known.order)[0] == pytest.approx(raced.known.objective)


def test_a_solver_that_fails_is_counted(monkeypatch):
    def broken(self, problem, seed=0):
        if self.label != "greedy":
            raise RuntimeError("no")
        return greedy(problem)

    monkeypatch.setattr(Effort, "plan", broken)
    problem = random_problem(np.random.default_rng(0), 3, 2)
    answers = race(QUICK, text_of(problem)).answers
    assert [a.status for a in answers] == ["feasible", "failed", "failed"]
    assert answers[0].objective == answers[1].objective


known = st.builds(
    lambda objective, below, solver: Known(objective, (0,), (0,), solver, objective - below, f"{solver} bound"),
    st.floats(1.0, 10.0),
    st.floats(0.0, 20.0),
    st.sampled_from("ab"),
)


@given(known, known)
def test_what_is_known_only_gets_better(before, found):
    after = better_of(before, found)
    assert after.objective <= before.objective
    assert after.objective == pytest.approx(min(before.objective, found.objective), rel=2e-9)
    assert after.bound <= after.objective
    valid = [one.bound for one in (before, found) if one.bound <= after.objective]
    assert after.bound >= max(valid)
    assert better_of(after, before) == after and better_of(after, found) == after
    assert (after.status == "optimal") == (after.objective - after.bound <= 1e-6 * after.objective)


def test_a_refuted_bound_is_dropped(caplog):
    claim = Known(5.0, (0,), (0,), "theirs", 4.5, "theirs")
    after = better_of(claim, Known(4.0, (1,), (0,), "ours", 3.0, "ours"))
    assert (after.objective, after.bound, after.bound_by) == (4.0, 3.0, "ours")
    assert "the bound 4.5 of theirs is refuted by a plan of ours that costs 4" in caplog.text


def test_gaps_are_shares_of_the_objective():
    assert gap(4.0, 3.0) == 0.25 and gap(0.0, 0.0) == 0.0
    assert gap(0.0, -1.0) == math.inf and gap(4.0, -math.inf) == math.inf
    assert gap(4.0, 3.0) == Plan(np.zeros(1), np.zeros(1), 4.0, 3.0).gap


@pytest.fixture(scope="module")
def recordings():
    """Two runs, everything kept, and the same with at most three of each size."""
    shared = shared_for(small(rates=[0.3]), workflows=20)
    policy = QUICK[1].policy("deadline")
    jobs = [Job(0, 0, 0.3, policy, seed, 5, 25, 5) for seed in (0, 1)]
    runs = [shared.settings[0].experiments[0].run(make_policy(policy), *_drawn(shared, job)) for job in jobs]
    return [[record(shared, Task(0, job, most)) for job in jobs] for most in (None, 3)], runs


def _drawn(shared, job):
    return shared.settings[0].experiments[0].sample(35, job.rate, job.seed)


def test_every_epoch_of_the_measured_time_is_recorded(recordings):
    (everything, _), runs = recordings
    for recording, run in zip(everything, runs, strict=True):
        begin, end = run.workflow["arrival"][5], run.workflow["arrival"][30]
        assert all(begin <= one.at_s < end for one in recording.kept)
        assert sum(recording.counts.values()) == len(recording.kept) < run.solves.solves
        numbers = {one.number for one in recording.kept}
        assert numbers == set(range(min(numbers), max(numbers) + 1)) and max(numbers) <= run.solves.solves
        for one in recording.kept:
            problem = problem_from(json.loads(one.text))
            assert problem.stages == one.stages and problem.instances == 4


def test_runs_that_keep_a_few_give_the_same_sample(recordings):
    (everything, few), _ = recordings
    assert all(len(r.kept) <= 3 * len(r.counts) for r in few)
    for wanted in (1, 2, 3):
        assert sample(few, wanted) == sample(everything, wanted)
    assert len(sample(everything, None)) == sum(len(r.kept) for r in everything)
    some = sample(everything, 12)
    assert len(some) == 12
    total = sum(sum(r.counts.values()) for r in everything)
    classes = {one.size for one in some}
    standing = sum(one.stands_for for one in some)
    missed = sum(n for r in everything for size, n in r.counts.items() if size not in classes)
    assert standing + missed == pytest.approx(total)


def raced_problems():
    rng = np.random.default_rng(5)
    made = []
    for k, n in enumerate((1, 1, 2, 4, 4)):
        raced = race(QUICK, text_of(random_problem(rng, n, 3)))
        made.append(Problem(f"p{k}", "80%" if k % 2 else "95%", n, 1.0 + k, raced))
    return made


def test_rows_of_gaps_are_means_over_what_the_problems_stand_for():
    problems = raced_problems()
    rows = {(row.load, row.size, row.effort): row for row in gap_rows(problems)}
    assert {load for load, _, _ in rows} == {"", "80%", "95%"}
    for size, stages in (("", (1, 2, 4)), (SEVERAL, (2, 4)), ("3 to 4", (4,))):
        own = [p for p in problems if p.stages in stages]
        weight = np.array([p.stands_for for p in own])
        for k, effort in enumerate(QUICK):
            row = rows["", size, effort.label]
            objective = np.array([p.raced.answers[k].objective for p in own])
            best = np.array([p.raced.known.objective for p in own])
            assert row.above_best.mean == pytest.approx(np.average(1.0 - best / objective, weights=weight), abs=1e-12)
            assert row.problems == len(own) and row.epochs == weight.sum()
            assert row.above_bound.mean >= row.above_best.mean - 1e-12 and row.proven <= row.best
    flat = answer_rows(problems)
    assert len(flat) == 15 and {row["problem"] for row in flat} == {f"p{k}" for k in range(5)}


def test_the_price_of_a_gap_is_the_slope_that_was_planted():
    base = [100.0, 120.0, 90.0]
    gaps = {"annealing:300": 0.001, "greedy": 0.011, "spoiled:20%": 0.151}
    results = made_results(
        {name: [x * math.exp(2.0 * (g - 0.001)) for x in base] for name, g in gaps.items()} | {"none": base}
    )
    labels = {cell: f"{cell.load:.0%}" for cell in results.cells}
    rows = [
        GapRow(load, size, name, 1, 1.0, 0.1, Estimate(g, 0.0, 1), Estimate(g, 0.0, 1), g, 0.0, 0.0, 0)
        for name, g in gaps.items()
        for load in ("", "50%", "100%")
        for size in ("", SEVERAL)
    ]
    found = outcomes(results, labels, rows, "annealing:300")
    assert len(found) == 8 and [one.gap is None for one in found if one.load == "50%"] == [False] * 3 + [True]
    cost = {(p.load, p.metric.key): p for p in prices(results, labels, found, "annealing:300")}
    for load in ("50%", "100%"):
        for key in ("p95_s", "mean_s"):
            assert cost[load, key].cost.mean == pytest.approx(math.exp(2.0 * 0.05))
            assert cost[load, key].reach == pytest.approx(0.151)
        assert cost[load, "attainment"].cost.mean < 0.0


def library(folder):
    rng = np.random.default_rng(3)
    entries = []
    for k in range(2):
        problem = random_problem(rng, 3, 2)
        found = race(QUICK, text_of(problem)).known
        entries.append(Entry(f"p{k}.json", text_of(problem), problem, {"load": "80%", "stands_for": 2.5}, found))
    write_library(folder, {"trace": "made"}, entries)
    return entries


def test_a_folder_is_read_as_it_was_written(tmp_path):
    entries = library(tmp_path)
    about, read = read_library(tmp_path)
    assert about == {"trace": "made"}
    for before, after in zip(entries, read, strict=True):
        assert replace(after, problem=before.problem) == before
        plan = after.known
        assert evaluate(after.problem, plan.instance, plan.order).objective == plan.objective
    (tmp_path / "new.json").write_text(entries[0].text)
    assert [entry.known is None for entry in read_library(tmp_path)[1]] == [True, False, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": 1.0}, "p0.json: objective is 1, but its plan costs"),
        ({"objective": "x"}, "p0.json: objective is 'x', expected a number"),
        ({"bound": "x"}, "p0.json: bound is 'x', expected a number"),
        ({"instance": [0, 0]}, "p0.json: plan: instance and order have shapes"),
        ({"order": [0, 1, 1]}, "p0.json: "),
        ({"sha256": "0"}, "p0.json: sha256 is another one"),
        ({"stands_for": 0}, "p0.json: stands_for is 0, expected a number of at least 1"),
    ],
)
def test_claims_that_do_not_hold_are_named(tmp_path, change, message):
    library(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    index["problems"]["p0.json"] |= change
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(LibraryError) as error:
        read_library(tmp_path)
    assert message in str(error.value)


def test_folders_that_are_none_are_named(tmp_path):
    with pytest.raises(LibraryError, match="there is no such folder"):
        read_library(tmp_path / "none")
    with pytest.raises(LibraryError, match="holds no epoch problem"):
        read_library(tmp_path)
    library(tmp_path)
    (tmp_path / "p1.json").unlink()
    with pytest.raises(LibraryError, match=r"p1\.json: there is no such file"):
        read_library(tmp_path)
    (tmp_path / "p1.json").write_text('{"service": 1}')
    with pytest.raises(LibraryError, match=r"p1\.json: service: expected an array|p1\.json: "):
        read_library(tmp_path)
    (tmp_path / INDEX).write_text("{}")
    with pytest.raises(LibraryError, match=r"best_known\.json: format is not"):
        read_library(tmp_path)


def test_random_plans_never_beat_the_best_known():
    rng = np.random.default_rng(8)
    problem = random_problem(rng, 4, 2)
    found = race(QUICK, text_of(problem)).known
    for _ in range(50):
        assert judged(problem, *random_plan(rng, problem))[0] >= found.objective - 1e-9
