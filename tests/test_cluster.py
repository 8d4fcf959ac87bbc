"""Clusters from TOML: what a file says is what is served, and every bad one is refused in one line."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexopt.cluster import ClusterError, bundled_clusters, cluster_toml, load_cluster, parse_cluster, refuse_roles
from hexopt.memory_rules import Admission, Swap
from hexopt.models.cells import Cell, latency
from hexopt.models.regressors import DEFAULT
from hexopt.models.training import load_profiles, train, write_report
from hexopt.simulation.simulator import fleet_of, instance_table

TOP = 'llm = "llama-3.1-8b"\n'
ROW = '[[instance]]\ngpu = "h100"\n'


def load(tmp_path, text: str | bytes, name: str = "fleet.toml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_cluster(path)


@pytest.mark.parametrize(
    ("name", "gpus"),
    [
        ("a100", ["a100"] * 4),
        ("hetero-1", ["a100", "a100", "a6000", "l40s"]),
        ("hetero-2", ["a100", "a6000", "a100", "a6000"]),
        ("h100-l40s", ["h100", "h100", "l40s", "l40s"]),
    ],
)
def test_bundled_clusters_are_those_that_they_name(name, gpus):
    cluster = load_cluster(name)
    assert [i.cell.cell.gpu for i in cluster.instances] == gpus
    assert len({i.name for i in cluster.instances}) == len(cluster) == len(gpus)
    for i in cluster.instances:
        assert 0 < i.max_model_len <= i.kv_tokens == i.cell.kv_tokens and i.prefix_caching
        large = i.cell.cell.gpu == "h100"
        assert (i.max_num_batched_tokens, i.max_num_seqs) == ((8192, 1024) if large else (2048, 256))


def test_every_bundled_cluster_loads():
    assert {name: len(load_cluster(path)) for name, path in bundled_clusters().items()} == {
        name: len(load_cluster(name)) for name in bundled_clusters()
    }
    assert {"a100", "hetero-1", "hetero-2", "h100-l40s"} <= set(bundled_clusters())


LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "max_num_seqs": st.integers(1, 65536),
        "max_num_batched_tokens": st.integers(16, 1 << 20),
        "block_size": st.integers(1, 1024),
        "max_model_len": st.integers(1, 1 << 20),
        "prefix_caching": st.booleans(),
    },
)


@given(top=LIMITS, row=LIMITS, kv_tokens=st.none() | st.integers(2048, 180_000), count=st.integers(1, 4))
def test_a_row_overrides_the_top_and_the_top_the_defaults(top, row, kv_tokens, count):
    own = {} if kv_tokens is None else {"kv_tokens": kv_tokens}
    document = {"llm": "llama-3.1-8b", **top, "instance": [{"gpu": "l40s", "count": count, **row, **own}]}
    cluster = parse_cluster(document, "here")
    cell = latency("l40s", "llama-3.1-8b")
    defaults = {"max_num_seqs": 256, "max_num_batched_tokens": 2048, "block_size": 16, "prefix_caching": True}
    wanted = {**defaults, "max_model_len": 131072, "kv_tokens": cell.kv_tokens, **top, **row, **own}
    wanted["max_model_len"] = min(wanted["max_model_len"], wanted["kv_tokens"])
    assert [i.name for i in cluster.instances] == [f"l40s-{k}" for k in range(count)]
    for instance in cluster.instances:
        assert {key: getattr(instance, key) for key in wanted} == wanted and instance.cell is cell


def test_names_parallelism_and_price(tmp_path):
    text = 'name = "Mine"\nllm = "llama-3.1-70b"\n[[instance]]\ngpu = "h100"\nname = "big"\ntp = 8\nprice = 9\n'
    cluster = load(tmp_path, text + '[[instance]]\ngpu = "l40s"\ncount = 2\nname = "small"\n')
    assert cluster.name == "Mine" and [i.name for i in cluster.instances] == ["big", "small-0", "small-1"]
    assert [(i.cell.cell.tp, i.cell.cell.pp, i.price) for i in cluster.instances] == [(8, 1, 9.0)] + [(2, 2, 0.0)] * 2
    assert load(tmp_path, TOP + ROW).name == "fleet"


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        (TOP, "instance", "required"),
        (TOP + "instance = []", "instance", "at least 1"),
        (TOP + '[instance]\ngpu = "h100"', "instance", "list"),
        (TOP + "[[instance]]\ncount = 2", "instance[0].gpu", "required"),
        (ROW, "instance[0]", "llm is missing"),
        (TOP + '[[instance]]\ngpu = "tpu"', "instance[0]", "unknown GPU 'tpu', expected one of a100, "),
        ('llm = "gpt"\n' + ROW, "instance[0]", "unknown LLM 'gpt', expected one of llama-3.1-8b, "),
        (TOP + ROW + ROW.replace("h100", "a6000") + 'llm = "llama-3.1-70b"\ntp = 1', "instance[1]", "does not fit in"),
        (TOP + ROW + "tp = 3", "instance[0]", "profiled are tp=1"),
        (TOP + ROW + "kv_tokens = 10_000_000", "instance[0]", "kv_tokens is 10000000"),
        (TOP + ROW + "kv_tokens = 31", "instance[0]", "kv_tokens is 31, expected at least two blocks of 16"),
        (TOP + ROW + 'tp = "2"', "instance[0].tp", "valid integer"),
        (TOP + ROW + "max_num_seqs = true", "instance[0].max_num_seqs", "valid integer"),
        (TOP + ROW + "max_num_seqs = 0", "instance[0].max_num_seqs", "greater than or equal to 1"),
        (TOP + ROW + "max_num_batched_tokens = 4294967296", "instance[0].max_num_batched_tokens", "less than"),
        (TOP + ROW + "prefix_caching = 1", "instance[0].prefix_caching", "valid boolean"),
        (TOP + ROW + "count = 0", "instance[0].count", "greater than"),
        (TOP + ROW + "price = nan", "instance[0].price", "finite"),
        (TOP + ROW + "swap = { gb = 0 }", "instance[0].swap.gb", "greater than 0"),
        (TOP + ROW + 'swap = { gb = 60, granularity = "page" }', "instance[0].swap.granularity", "'block' or 'group'"),
        (TOP + ROW + "swap = { gigabytes = 60 }", "instance[0].swap.gb", "required"),
        (TOP + ROW + "admission = { share = 0.9 }", "instance[0].admission.rule", "required"),
        (TOP + ROW + 'admission = { rule = "brave" }', "instance[0].admission.rule", "'past-future'"),
        (TOP + ROW + 'admission = { rule = "true", share = 1.1 }', "instance[0].admission.share", "less than"),
        (TOP + ROW + "price = -0.5", "instance[0].price", "greater than"),
        ("block_size = 2.5\n" + TOP + ROW, "block_size", "valid integer"),
        (TOP + ROW + "gpus = 2", "instance[0].gpus", "not permitted"),
        ("instances = 2\n" + TOP + ROW, "instances", "not permitted"),
        (TOP + ROW + ROW, "instance", "two are named 'h100-0'"),
        (TOP + ROW + 'name = "x"\n' + ROW + 'name = "x"', "instance", "two are named 'x'"),
        (TOP + ROW + ROW + 'name = "x"\nllm = "qwen3-32b"', "llm", "llama-3.1-8b, qwen3-32b, expected one"),
    ],
)
def test_refuses_in_one_line_that_names_file_and_field(tmp_path, text, field, says):
    with pytest.raises(ClusterError) as refused:
        load(tmp_path, text)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'fleet.toml'}: {field}: ") and says in message and "\n" not in message


def test_swap_and_admission_are_an_instances_own_and_are_written_out(tmp_path):
    rules = 'swap = { gb = 60, overlap = true }\nadmission = { rule = "past-future", every = 5 }\n'
    cluster = load(tmp_path, TOP + ROW + rules + ROW.replace("h100", "a100"))
    first, second = cluster.instances
    assert first.swap == Swap(gb=60.0, overlap=True) and first.admission == Admission(rule="past-future", every=5)
    assert second.swap is None and second.admission is None
    again = parse_cluster(tomllib.loads(cluster_toml(cluster)), "again")
    assert [(i.swap, i.admission) for i in again.instances] == [(i.swap, i.admission) for i in cluster.instances]
    table = instance_table(cluster, True)
    assert table["host_blocks"].tolist() == [60e9 // (16 * 131072), 0]
    assert table["host_overlap"].tolist() == [1, 0] and table["check_every"].tolist() == [5, 0]
    assert table["share"].tolist() == [0.97, 0.0]


@pytest.mark.parametrize("text", ["llm = ", "[[instance]\n", b"\xff\xfe", b"\x00" * 9, '{"llm": 1}'])
def test_refuses_what_is_no_toml(tmp_path, text):
    with pytest.raises(ClusterError, match=r"fleet\.toml: is not a TOML file: "):
        load(tmp_path, text)


def test_refuses_what_is_not_there(tmp_path):
    with pytest.raises(ClusterError, match=r"'no-such' is neither a file nor a bundled cluster \(.*hetero-1"):
        load_cluster("no-such")
    with pytest.raises(ClusterError, match=r"no-such\.toml: cannot be read: No such file"):
        load_cluster(tmp_path / "no-such.toml")
    with pytest.raises(ClusterError, match="cannot be read: Is a directory"):
        load_cluster(tmp_path)


def test_an_instance_is_as_fast_as_it_says(tmp_path):
    rows = [ROW + 'name = "a"\nspeed = 0.8\n', ROW + 'name = "b"\nspeed = 2\n', ROW]
    slow, fast, usual = load(tmp_path, TOP + "".join(rows)).instances
    np.testing.assert_allclose(slow.coef, usual.coef / 0.8)
    np.testing.assert_allclose(fast.coef, usual.coef / 2)
    assert usual.coef.tolist() == usual.cell.coef.tolist()
    assert fleet_of(load_cluster(tmp_path / "fleet.toml")).coef.tolist() == [
        i.coef.tolist() for i in (slow, fast, usual)
    ]


def test_latency_models_of_ones_own_lie_beside_the_cluster(tmp_path):
    report = train([p for p in load_profiles() if p.cell == Cell("h100", "llama-3.1-8b", 1)], regressors=[DEFAULT])
    write_report(report, tmp_path / "models")
    own = load(tmp_path, 'latency = "models/latency.json"\n' + TOP + ROW).instances[0]
    bundled = load(tmp_path, TOP + ROW).instances[0]
    np.testing.assert_allclose(own.coef, bundled.coef, rtol=1e-9)
    assert own.kv_tokens == bundled.kv_tokens
    with pytest.raises(ClusterError, match=r"llama-3\.1-8b cannot be served on a100, which serves nothing"):
        load(tmp_path, 'latency = "models/latency.json"\n' + TOP + ROW.replace("h100", "a100"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: None, "is not JSON"),
        (lambda d: [], "features are not those of this version"),
        (lambda d: d | {"features": ["1"]}, "features are not those of this version"),
        (lambda d: {k: v for k, v in d.items() if k != "cells"}, "'cells' is missing"),
        (lambda d: d | {"cells": [d["cells"][0] | {"coef": [1.0]}]}, "coef of .*: expected 32 numbers"),
        (lambda d: d | {"cells": [d["cells"][0] | {"coef": [-1.0] * 32}]}, "none negative"),
        (lambda d: d | {"cells": [d["cells"][0] | {"kv_tokens": 0}]}, "kv_tokens of .* is 0"),
        (lambda d: d | {"cells": [5]}, "latency.json: "),
    ],
)
def test_damaged_latency_models_are_refused_by_name(tmp_path, change, words):
    bundled = json.loads(resources.files("hexopt.models").joinpath("latency.json").read_text())
    changed = change(bundled)
    (tmp_path / "latency.json").write_text("{" if changed is None else json.dumps(changed))
    with pytest.raises(ClusterError, match=words) as caught:
        load(tmp_path, 'latency = "latency.json"\n' + TOP + ROW)
    assert str(caught.value).startswith(f"{tmp_path / 'fleet.toml'}: latency: {tmp_path / 'latency.json'}: ")
    with pytest.raises(ClusterError, match=r"nowhere\.json: cannot be read"):
        load(tmp_path, 'latency = "nowhere.json"\n' + TOP + ROW)


PAIR = """
llm = "llama-3.1-70b"

[[instance]]
gpu = "h100"
role = "prefill"

[[instance]]
gpu = "a100"
role = "decode"
"""


def test_hexagents_clusters_have_the_pools_that_it_names():
    for name, counts in (("hexagent-hetero-1", (2, 3, 3)), ("hexagent-hetero-2", (3, 4, 3))):
        cluster = load_cluster(name)
        for role in ("prefill", "decode"):
            pool = [i.cell.cell.gpu for i in cluster.instances if i.role == role]
            assert tuple(pool.count(gpu) for gpu in ("a100", "h100", "h200")) == counts
        _, seconds = cluster.link_times()
        for p, here in enumerate(cluster.instances):
            for d, there in enumerate(cluster.instances):
                hopper = "a100" not in (here.cell.cell.gpu, there.cell.cell.gpu)
                # Llama-3.1-70B: 80 layers of 8 heads, keys and values of 128 numbers of two bytes.
                assert seconds[p, d] == 80 * 8 * 2 * 128 * 2 / (50e9 if hopper else 25e9)


def test_the_last_link_that_matches_holds(tmp_path):
    links = (
        "[[link]]\nlatency = 0.5\n"
        '[[link]]\nfrom = "h100"\nbandwidth = 1e9\n'
        '[[link]]\nfrom = "prefill-h100-0"\nto = "a100"\nbandwidth = 2e9\nlatency = 0.25\n'
    )
    cluster = load(tmp_path, PAIR + links)
    latency_s, seconds = cluster.link_times()
    assert latency_s.tolist() == [[0.0, 0.25], [0.5, 0.5]]
    assert seconds.tolist() == [[327680 / 1e9, 327680 / 2e9], [327680 / 25e9, 327680 / 25e9]]
    again = load(tmp_path, cluster_toml(cluster), "again.toml")
    assert again == replace(cluster, name=again.name) and again.links == cluster.links


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PAIR.replace("decode", "prefill"), "instance: there are prefill instances, but no decode instances"),
        (PAIR.replace("prefill", "decode"), "instance: there are decode instances, but no prefill instances"),
        (PAIR.replace("decode", "both"), r"instance\[1\].role: Input should be 'mixed', 'prefill' or 'decode'"),
        (PAIR + '[[link]]\nfrom = "l40s"\n', r"link\[0\]: from is 'l40s', expected one of h100, a100, prefill-h100-0"),
        (PAIR + "[[link]]\nbandwidth = 0.0\n", r"link\[0\].bandwidth: Input should be greater than 0"),
        (
            PAIR.replace('"h100"\n', '"h100"\nllm = "llama-3.1-70b-fp8"\n'),
            "prefill and decode instances serve llama-3.1-70b, llama-3.1-70b-fp8: their KV differs",
        ),
    ],
)
def test_roles_that_lead_nowhere_are_refused(tmp_path, text, message):
    with pytest.raises(ClusterError, match=message):
        load(tmp_path, text)


def test_who_cannot_use_roles_says_so(tmp_path):
    with pytest.raises(ClusterError, match="'prefill-h100-0' has role 'prefill': hexopt serve takes only instances"):
        refuse_roles(load(tmp_path, PAIR), "hexopt serve")
    refuse_roles(load_cluster("hetero-1"), "hexopt serve")
