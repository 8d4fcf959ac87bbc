import csv
import math

import numpy as np
import pytest
from research_cases import made_analysis, made_results

from hexopt.research.comparison import as_rows, judge, judge_values
from hexopt.research.metrics import METRICS, SUSTAINED, shown_metrics
from hexopt.research.statistics import bootstrap_mean, wilcoxon
from hexopt.research.tables import best_of, escaped, latex, markdown, shown, write_csv

RNG = np.random.default_rng(3)
NOISE = RNG.normal(0.0, 2.0, 10)
P95 = {
    "round-robin": list(100.0 + 10 * NOISE),
    "edf": list(50.0 + NOISE),
    "llf": list(49.0 + NOISE + RNG.normal(0.0, 3.0, 10)),
}


def judged(metric, p95=P95, baseline="round-robin"):
    results = made_results(p95)
    return {j.policy: j for j in judge(results, results.cells[0], METRICS[metric], baseline)}


def test_ratios_are_paired_and_geometric():
    found = judged("p95_s")
    gain = np.log(np.array(P95["round-robin"]) / np.array(P95["edf"]))
    versus = found["edf"].baseline
    assert versus.other == "round-robin"
    assert versus.estimate.mean == pytest.approx(np.exp(gain.mean()))
    assert versus.estimate.low == pytest.approx(np.exp(bootstrap_mean(gain).low))
    assert versus.effect == 1.0
    assert versus.p == pytest.approx(2 * wilcoxon(gain))  # the smaller of two equal ones, by Holm, and the other
    assert found["round-robin"].baseline is None


def test_what_should_be_large_is_better_where_it_is_larger():
    rates = {"edf": np.array([1.0, 1.1, 0.9]), "llf": np.array([2.0, 2.3, 1.8]), "round-robin": np.zeros(3)}
    found = {j.policy: j for j in judge_values(rates, SUSTAINED, "edf")}
    assert found["llf"].baseline.estimate.mean == pytest.approx(np.exp(np.log(rates["llf"] / rates["edf"]).mean()))
    assert found["llf"].baseline.effect == 1.0 and found["llf"].best_other.other == "edf"
    assert found["round-robin"].baseline is None
    assert best_of(list(found.values())) == "llf"


def test_shares_are_compared_by_difference():
    found = judged("attainment")["llf"].baseline
    attainment = {p: 10.0 / (10.0 + np.array(v)) for p, v in P95.items()}
    assert found.estimate.mean == pytest.approx((attainment["llf"] - attainment["round-robin"]).mean())
    assert found.effect > 0


def test_the_best_is_compared_with_the_second_and_the_others_with_the_best():
    means = {p: np.mean(v) for p, v in P95.items()}
    first, second, _ = sorted(means, key=means.get)
    found = judged("p95_s")
    assert found[first].best_other.other == second
    assert found[second].best_other.other == found["round-robin"].best_other.other == first
    assert best_of(list(found.values())) == first


def test_what_never_ended_is_compared_with_nothing():
    found = judged("p95_s", {"round-robin": [100.0, math.inf], "edf": [50.0, 51.0]})
    assert found["edf"].baseline is None and found["edf"].best_other is None
    assert math.isnan(found["round-robin"].value.low)
    assert found["edf"].value.mean == 50.5


def test_req99_takes_a_thousand_workflows():
    assert "req99" not in [m.key for m in shown_metrics(999)]
    assert "req99" in [m.key for m in shown_metrics(1000)]
    assert any("Req99" in text for text in made_analysis(P95, "edf").warnings())
    assert not made_analysis(P95, "edf", workflows=1000).warnings()


def test_too_few_seeds_are_said():
    few = {p: v[:5] for p, v in P95.items()}
    assert "Give more seeds" in made_analysis(few, "edf", workflows=1000).warnings()[0]


def test_tables(tmp_path):
    analysis = made_analysis(P95, "round-robin")
    cell, found = analysis.results.cells[0], analysis.judgements[analysis.results.cells[0]]
    text = latex(cell.title, found, "round-robin")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(P95)
    assert {row.count(" & ") for row in rows} == {len(analysis.metrics)}
    assert text.count(r"\textbf{") == len(analysis.metrics)
    assert r"$^\dagger$" in next(row for row in rows if row.startswith("edf"))
    assert r"$^\dagger$" not in next(row for row in rows if row.startswith("round-robin"))
    write_csv(tmp_path / "a.csv", [row for metric in found for row in as_rows(cell.keys(), metric)])
    said = markdown(cell.title, found, "round-robin").splitlines()
    assert said[0] == "## made on two at 50% of capacity (0.2/s), deadline 3x"
    table = [line for line in said if line.startswith("| ")]
    assert len(table) == 1 + len(P95) and {line.count(" | ") for line in table} == {len(analysis.metrics)}
    assert sum(line.count("**") for line in table) == 2 * len(analysis.metrics)
    assert r"\*" in next(line for line in table if line.startswith("| edf"))
    read = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert len(read) == len(P95) * len(analysis.metrics)
    p95 = next(r for r in read if r["policy"] == "edf" and r["metric"] == "p95_s")
    assert float(p95["mean"]) == pytest.approx(np.mean(P95["edf"]))
    assert float(p95["baseline_p_holm"]) < 0.05
    assert next(r for r in read if r["policy"] == "round-robin")["baseline_p_holm"] == ""


def test_figures_for_people():
    assert escaped("a_b & 50%") == r"a\_b \& 50\%"
    assert [shown(x) for x in (math.nan, 0.123456, 12345.6, 100.0)] == ["–", "0.123", "12,346", "100"]
    assert shown(0.1234, percent=True) == "12.3"
