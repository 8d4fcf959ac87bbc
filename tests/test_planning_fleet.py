"""Options, bills, limits, and fleets as clusters."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from planning_cases import CATALOGUE, limits, options

from hexopt.cluster import cluster_toml, load_cluster, parse_cluster
from hexopt.planning.catalogue import configurations
from hexopt.planning.fleet import Limits, bill_of, cluster_of, options_of, within_limits


def test_a_fleet_as_a_cluster_is_read_back_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    kinds = options(["h100 tp4", "l40s tp2 pp2"])
    cluster = cluster_of(kinds, (2, 1))
    assert [i.name for i in cluster.instances] == ["h100-tp4-0", "h100-tp4-1", "l40s-tp2-pp2-0"]
    file = tmp_path / "fleet.toml"
    file.write_text(cluster_toml(cluster))
    assert load_cluster(file).instances == cluster.instances


def test_instances_that_are_there_are_options_that_cost_nothing() -> None:
    found = options_of(configurations(CATALOGUE, ["llama-3.1-70b"]), load_cluster("hetero-1"))
    there = [o for o in found if o.owned]
    assert [(o.gpu, o.owned, o.price, o.buyable) for o in there] == [
        ("a100", 2, 0.0, False), ("a6000", 1, 0.0, False), ("l40s", 1, 0.0, False),
    ]  # fmt: skip
    assert len({o.name for o in found}) == len(found)


def test_variants_of_an_llm_share_a_fleet_and_others_do_not() -> None:
    rows = [{"gpu": "h100", "llm": "llama-3.1-70b"}, {"gpu": "h100", "llm": "llama-3.1-70b-fp8", "name": "b"}]
    assert len(parse_cluster({"instance": rows}, "x").instances) == 2
    with pytest.raises(ValueError, match="expected one LLM, or variants of one"):
        parse_cluster({"instance": [rows[0], {"gpu": "h100", "llm": "qwen3-32b", "name": "b"}]}, "x")


def test_a_bill_counts_spot_instances_where_they_are_allowed() -> None:
    kinds = options(["h100 tp4", "a100 tp4"])
    h100, a100 = (o.price for o in kinds)
    assert bill_of(kinds, (3, 2), limits()).cost == pytest.approx(3 * h100 + 2 * a100)
    half = bill_of(kinds, (3, 2), limits(spot_share=0.5))
    assert half.spot == (1, 1)
    assert half.cost == pytest.approx(3 * h100 + 2 * a100 - sum(o.price - (o.spot_price or 0) for o in kinds))
    few = {"h100": replace(CATALOGUE.offer("h100"), max_spot=3), "a100": CATALOGUE.offer("a100")}
    assert bill_of(kinds, (4, 2), Limits(few, spot_share=1.0)).spot == (0, 2)


def test_whole_nodes_are_paid_whole() -> None:
    kinds = options(["h100 tp4", "h100 tp2"])
    offer = replace(CATALOGUE.offer("h100"), whole_nodes=True, per_node=8, max=16)
    bill = bill_of(kinds, (2, 1), Limits({"h100": offer}, spot_share=1.0))
    assert bill.nodes == {"h100": 2}
    assert bill.cost == pytest.approx(16 * offer.price)
    assert within_limits(kinds, (2, 4), Limits({"h100": offer}))
    assert not within_limits(kinds, (2, 5), Limits({"h100": offer}))


def test_limits_hold() -> None:
    kinds = options(["h100 tp4", "a100 tp4"])
    offers = {"h100": replace(CATALOGUE.offer("h100"), max=8), "a100": CATALOGUE.offer("a100")}
    assert within_limits(kinds, (2, 9), Limits(offers))
    assert not within_limits(kinds, (3, 0), Limits(offers))
    assert not within_limits(kinds, (1, 1), Limits(offers, budget=kinds[0].price))
    assert not within_limits(kinds, (1, 1), Limits(offers, least=(1, 2)))
    assert not within_limits(kinds, (1, 3), Limits(offers, most=(1, 2)))
    assert Limits(offers).range_of(0, kinds[0]) == (0, None)
    assert Limits(offers, budget=math.inf, least=(1, 0), most=(0, 4)).range_of(0, kinds[0]) == (1, 1)
