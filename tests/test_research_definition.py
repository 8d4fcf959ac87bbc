import re
from pathlib import Path

import pytest
from research_cases import SMALL, TUNED, small, toml

from hexopt.bundled_experiments import EXPERIMENTS
from hexopt.policies.registry import POLICIES, PolicyError, make_policy
from hexopt.research import Definition, DefinitionError, load_definition
from hexopt.research.contestants import KNOW_THE_TRUTH, contestants, read_sources, register
from hexopt.research.grid import deadline_labels

TUNED_TOML = ("[[tuned]]", 'policy = "hexgen-flow"', 'parameter = "alpha"', "values = [0.0, 0.5]")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_bundled_experiments_can_be_run(name):
    definition, text, path = load_definition(name)
    assert Definition.model_validate(definition.model_dump()) == definition
    assert path.read_text() == text
    assert contestants(definition)


def test_hexgen_flow_compares_everyone_who_does_not_know_the_truth():
    definition, _, _ = load_definition("hexgen-flow")
    assert definition.clusters == ["hetero-1", "hetero-2"]
    assert definition.loads == [0.5, 0.8, 0.95, 1.1]
    assert definition.workflows >= 1000
    assert set(definition.seed_list).isdisjoint(definition.tuning_seed_list)
    assert {c.text.partition(":")[0] for c in contestants(definition)} == set(POLICIES) - KNOW_THE_TRUTH
    assert all("freeze=true" in c.text for c in contestants(definition) if c.text.startswith("rolling-horizon"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rates": "[-0.1]"}, "rates[0]: Input should be greater than 0"),
        ({"rates": '"fast"'}, "rates: Input should be a valid list"),
        ({"rates": ""}, "rates and loads: expected one of the two"),
        ({"loads": "[0.5]"}, "rates and loads: expected one of the two"),
        ({"slos": "[60]"}, "slo_factors, slo_scales, slos: expected one of them"),
        ({"slo_scales": "[2.0]"}, "slo_factors, slo_scales, slos: expected one of them"),
        ({"slo_factors": "", "slo_scales": "[2.0, 2.0]"}, "slo_scales: one is there twice"),
        ({"sustained": "{ share = 1.0 }"}, "sustained.share: Input should be less than 1"),
        ({"sustained": "{}", "events": '["a100-0 down at 3s for 1s"]'}, "sustained: rates are sought where nothing is"),
        ({"rates": "[0.1, 0.1]"}, "rates: one is there twice"),
        ({"traces": "[]"}, "traces: List should have at least 1 item"),
        ({"traces": '[{ name = "a" }]'}, "traces[0].source: Field required"),
        ({"traces": '["a.jsonl", "b/a.jsonl"]'}, "traces: two are called 'a'"),
        ({"clusters": '["a.toml", "b/a.toml"]'}, "clusters: two are called 'a'"),
        ({"policies": "[]"}, "policies: expected at least one"),
        ({"workflows": "3"}, "workflows: Input should be greater than or equal to 10"),
        ({"workflows": '"20"'}, "workflows: Input should be a valid integer"),
        ({"seeds": "[1, 1]"}, "seeds: one is there twice"),
        ({"seeds": "0"}, "seeds: Input should be greater than or equal to 1"),
        ({"events": '["a100-0 breaks"]'}, "events: event 'a100-0 breaks': expected 'NAME down at 300s for 120s'"),
        ({"colour": '"red"'}, "colour: Extra inputs are not permitted"),
        ({"title": ""}, "title: Field required"),
        ({"title": "Small"}, "is not a TOML file"),
    ],
)
def test_errors_name_the_file_and_the_field(tmp_path, changes, says):
    path = toml(tmp_path / "bad.toml", **changes)
    with pytest.raises(DefinitionError, match=re.escape(f"{path}: ")) as error:
        load_definition(str(path))
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "changes", "says"),
    [
        (TUNED_TOML, {"tuning_seeds": "[1, 5]"}, "tuning_seeds: 1 is among the seeds that are reported"),
        ((*TUNED_TOML[:3], "values = [0.0]"), {}, "tuned[0].values: List should have at least 2 items"),
        ((*TUNED_TOML, 'metric = "speed"'), {}, "tuned[0].metric: expected one of attainment, p95_s"),
        ((*TUNED_TOML, 'metric = "req99"'), {}, "tuned: metric req99 takes 1000 workflows a run, here are 20"),
        (TUNED_TOML * 2, {}, "tuned: two are called 'hexgen-flow (alpha tuned)'"),
    ],
)
def test_errors_of_tuned_policies(tmp_path, lines, changes, says):
    path = toml(tmp_path / "bad.toml", *lines, **changes)
    with pytest.raises(DefinitionError) as error:
        load_definition(str(path))
    assert str(error.value).startswith(f"{path}: ") and says in str(error.value)


def test_a_file_that_is_not_there():
    with pytest.raises(DefinitionError) as error:
        load_definition("nowhere")
    assert str(error.value) == f"nowhere: no such file, and no bundled experiment ({', '.join(EXPERIMENTS)})"


def test_policies_that_cannot_be_compared():
    with pytest.raises(PolicyError, match="policy 'fastest' is unknown"):
        contestants(small(policies=["fastest"]))
    with pytest.raises(DefinitionError, match="baseline: 'llf' is not compared; there are round-robin, edf"):
        contestants(small(baseline="llf"))
    with pytest.raises(DefinitionError, match="two are called 'edf'"):
        contestants(small(policies=["edf", "edf:"], baseline="edf"))
    with pytest.raises(PolicyError, match=r"alpha is 1\.5"):
        contestants(small(tuned=[{**TUNED[0], "values": [0.5, 1.5]}]))


def test_all_stands_for_those_that_are_not_named():
    found = contestants(small(policies=["all", "greedy-urgency:urgency=2"], tuned=TUNED))
    names = [c.text.partition(":")[0] for c in found]
    assert len(set(names)) == len(names) and set(names) == set(POLICIES) - KNOW_THE_TRUTH


def test_deadlines_have_names():
    assert deadline_labels(small(slo_factors=[1.5, 3.0])) == ["1.5x", "3x"]
    assert deadline_labels(Definition.model_validate({**SMALL, "slo_factors": [], "slos": [60]})) == ["60 s"]
    assert deadline_labels(Definition.model_validate({**SMALL, "slo_factors": [], "slo_scales": [2]})) == ["2x own"]


def test_policy_files_may_postpone_their_annotations(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from hexopt.policies.policy import Policy\n"
        "@dataclass(frozen=True)\nclass A(Policy):\n    much: float = 1.0\n    name: ClassVar[str] = 'mine'\n"
    )
    try:
        assert register(*read_sources([path])) == ("mine",)
        assert make_policy("mine:much=2").much == 2.0
    finally:
        POLICIES.pop("mine", None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "mine.py: has no subclass of Policy"),
        ("import nonsense_of_ours", "mine.py: ModuleNotFoundError"),
        ("def", "mine.py: SyntaxError"),
        ("from hexopt.policies.policy import Policy\nclass A(Policy): pass", "A needs a name of its own, it has none"),
        ("from hexopt.policies.policy import Policy\nclass A(Policy): name = 'edf'", "'edf' is taken"),
    ],
)
def test_errors_of_policy_files(tmp_path, text, says):
    path = tmp_path / "mine.py"
    path.write_text(text)
    before = dict(POLICIES)
    with pytest.raises(DefinitionError, match="policy_files: ") as error:
        register(*read_sources([path]))
    assert says in str(error.value)
    assert before == POLICIES
    with pytest.raises(DefinitionError, match="cannot be read"):
        read_sources([Path("nowhere.py")])
