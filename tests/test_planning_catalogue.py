"""GPU types on offer: prices with their sources, one's own laid over them, and the configurations that follow."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexopt.models.catalogue import GPUS, LLMS
from hexopt.models.cells import bundled_latency
from hexopt.planning.catalogue import CatalogueError, bundled_catalogue, configurations, load_catalogue

BUNDLED = bundled_catalogue()


def load(tmp_path: Path, text: str, name: str = "gpus.toml"):
    path = tmp_path / name
    path.write_text(text)
    return load_catalogue(path)


def test_every_gpu_type_with_profiles_is_on_offer_with_a_dated_source():
    assert BUNDLED.currency == "USD" and BUNDLED.source == BUNDLED.latency == ""
    assert [offer.name for offer in BUNDLED.offers] == list(GPUS)
    for offer in BUNDLED.offers:
        assert offer.memory_gib == GPUS[offer.name].memory_gib
        assert 0 < offer.spot_price < offer.price
        assert offer.bandwidth > 500 and offer.per_node == 8
        for text in (offer.source, offer.spot_source):
            assert "https://" in text or text.startswith("assumed: ")
        assert date(2026, 1, 1) <= date.fromisoformat(offer.date) <= date(2026, 11, 21)


def test_assumed_spot_prices_are_the_share_that_they_say():
    for offer in BUNDLED.offers:
        assert offer.spot_price == pytest.approx(0.8 * offer.price, abs=0.005)


def test_a_copy_of_the_bundled_file_changes_nothing(tmp_path):
    text = resources.files("hexopt.planning").joinpath("gpus.toml").read_text()
    assert load(tmp_path, text).offers == BUNDLED.offers
    assert load(tmp_path, "").offers == load_catalogue().offers == BUNDLED.offers


def test_a_row_overrides_what_it_gives(tmp_path):
    mine = load(tmp_path, '[[gpu]]\nname = "h100"\nmax = 16\nmax_spot = 4\nwhole_nodes = true\nper_node = 4\n')
    assert mine.offer("h100") == replace(BUNDLED.offer("h100"), max=16, max_spot=4, whole_nodes=True, per_node=4)
    assert [o for o in mine.offers if o.name != "h100"] == [o for o in BUNDLED.offers if o.name != "h100"]
    assert mine.source == str(tmp_path / "gpus.toml")


def test_a_price_of_ones_own_brings_its_own_spot_price_and_source(tmp_path):
    mine = load(tmp_path, '[[gpu]]\nname = "h100"\nprice = 2\n').offer("h100")
    assert (mine.price, mine.spot_price, mine.date, mine.spot_source) == (2.0, None, "", "")
    assert mine.source == str(tmp_path / "gpus.toml")
    text = '[[gpu]]\nname = "h100"\nprice = 2.5\nspot_price = 1.0\nsource = "our contract"\ndate = "2026-11"\n'
    mine = load(tmp_path, text).offer("h100")
    assert (mine.price, mine.spot_price, mine.source) == (2.5, 1.0, "our contract")
    assert (mine.spot_source, mine.date) == ("our contract", "2026-11")


@pytest.mark.parametrize("written", ["2026-11-02", '"2026-11-02"'])
def test_a_date_may_be_tomls_own(tmp_path, written):
    assert load(tmp_path, f'[[gpu]]\nname = "h100"\ndate = {written}\n').offer("h100").date == "2026-11-02"


def test_a_spot_price_alone_leaves_the_price_on_demand(tmp_path):
    mine = load(tmp_path, '[[gpu]]\nname = "h100"\nspot_price = 1.0\n').offer("h100")
    theirs = BUNDLED.offer("h100")
    assert (mine.price, mine.source, mine.date) == (theirs.price, theirs.source, theirs.date)
    assert (mine.spot_price, mine.spot_source) == (1.0, str(tmp_path / "gpus.toml"))


def test_only_the_types_of_the_file_are_on_offer_when_it_says_so_or_pays_in_other_money(tmp_path):
    row = '[[gpu]]\nname = "l40s"\nmax = 3\n'
    only = load(tmp_path, "bundled = false\n" + row)
    assert [(o.name, o.price, o.max) for o in only.offers] == [("l40s", BUNDLED.offer("l40s").price, 3)]
    euro = load(tmp_path, 'currency = "EUR"\n' + row + "price = 0.8\n")
    assert euro.currency == "EUR"
    assert [(o.name, o.price, o.spot_price, o.memory_gib) for o in euro.offers] == [("l40s", 0.8, None, 45.0)]
    with pytest.raises(CatalogueError, match=r"gpu\[0\].price: is missing for 'l40s'"):
        load(tmp_path, 'currency = "EUR"\n' + row)


def test_other_types_need_latency_models_and_a_price(tmp_path):
    document = json.loads(resources.files("hexopt.models").joinpath("latency.json").read_text())
    document["cells"] = [
        {**row, "gpu": "mi300x"} if row["gpu"] == "h200" else row
        for row in document["cells"]
        if row["gpu"] in ("h200", "a100")
    ]
    (tmp_path / "mine.json").write_text(json.dumps(document))
    head = 'latency = "mine.json"\n'
    mine = load(tmp_path, head + '[[gpu]]\nname = "mi300x"\nprice = 2.2\nmemory_gib = 192.0\n')
    assert [o.name for o in mine.offers] == ["a100", "mi300x"]
    assert mine.latency == str((tmp_path / "mine.json").resolve())
    found = configurations(mine, ["llama-3.1-70b"])
    assert {c.gpu for c in found} == {"a100", "mi300x"}
    assert all(c.cell is mine.models.cells[c.cell.cell] for c in found)
    with pytest.raises(CatalogueError, match=r"gpu\[0\].price: is missing for 'mi300x'"):
        load(tmp_path, head + '[[gpu]]\nname = "mi300x"\n')
    with pytest.raises(CatalogueError, match="unknown GPU 'h100', expected one with a latency model: a100, mi300x"):
        load(tmp_path, head + '[[gpu]]\nname = "h100"\n')


H100 = '[[gpu]]\nname = "h100"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (H100 + "price = -1\n", r"gpu\[0\]\.price: .*greater than or equal to 0"),
        (H100 + "spot_price = -0.5\n", r"gpu\[0\]\.spot_price: "),
        (H100 + "price = nan\n", r"gpu\[0\]\.price: .*finite"),
        (H100 + 'price = "2"\n', r"gpu\[0\]\.price: .*number"),
        (H100 + "max = 1.5\n", r"gpu\[0\]\.max: "),
        (H100 + "per_node = 0\n", r"gpu\[0\]\.per_node: "),
        (H100 + "cost = 3\n", r"gpu\[0\]\.cost: Extra inputs"),
        (H100 + 'date = "last week"\n', r"gpu\[0\]\.date: "),
        (H100 + "date = 2026-11-02T10:00:00\n", r"gpu\[0\]\.date: "),
        ("[[gpu]]\nprice = 3\n", r"gpu\[0\]\.name: Field required"),
        (H100 + H100, r"gpu\[1\]\.name: a second row of 'h100'"),
        ('[[gpu]]\nname = "h900"\n', r"gpu\[0\]\.name: unknown GPU 'h900', expected one .*: a100, "),
        ('currency = "$"\n', "currency: "),
        ("gpu = 3\n", "gpu: .*list"),
        ("prices = 3\n", "prices: Extra inputs"),
        ('latency = "none.json"\n', "latency: .*none.json: cannot be read"),
        ("bundled = false\n", "gpu: nothing is on offer"),
        ("currency =\n", "is not a TOML file"),
    ],
)
def test_bad_files_are_refused_in_one_line_that_names_file_and_field(tmp_path, text, said):
    with pytest.raises(CatalogueError, match=re.escape(str(tmp_path / "gpus.toml")) + ": " + said) as error:
        load(tmp_path, text)
    assert "\n" not in str(error.value)


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(CatalogueError, match=r"none\.toml: cannot be read"):
        load_catalogue(tmp_path / "none.toml")
    (tmp_path / "raw.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(CatalogueError, match=r"raw\.toml: is not a TOML file"):
        load_catalogue(tmp_path / "raw.toml")
    with pytest.raises(CatalogueError, match="no offer of GPU 'tpu', expected one of a100, "):
        BUNDLED.offer("tpu")


@given(st.lists(st.sampled_from(sorted(LLMS)), min_size=1, unique=True))
def test_configurations_are_all_cells_of_the_variants(llms):
    found = configurations(BUNDLED, llms)
    assert {c.cell.cell for c in found} == {cell for cell in bundled_latency().cells if cell.llm in llms}
    for c in found:
        offer = BUNDLED.offer(c.gpu)
        assert c.gpus == c.tp * c.pp == c.cell.cell.gpus and c.kv_tokens == c.cell.kv_tokens
        assert c.price == pytest.approx(offer.price * c.gpus)
        assert c.spot_price == pytest.approx(offer.spot_price * c.gpus)


def test_configurations_fit_a_node_and_their_gpu_is_on_offer(tmp_path):
    mine = load(tmp_path, "bundled = false\n" + H100 + "per_node = 4\nprice = 2.0\n")
    found = configurations(mine, ["llama-3.1-70b"])
    assert [(c.gpu, c.tp, c.pp, c.price, c.spot_price) for c in found] == [
        ("h100", 2, 1, 4.0, None),
        ("h100", 4, 1, 8.0, None),
    ]


def test_an_unknown_llm_is_refused_naming_those_that_there_are():
    with pytest.raises(CatalogueError, match=r"no latency model of LLM 'gpt', expected one of llama-3\.1-70b, "):
        configurations(BUNDLED, ["llama-3.1-8b", "gpt"])
