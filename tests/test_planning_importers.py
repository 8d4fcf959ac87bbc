"""Mélange's and AIBrix's files: what they say is what the table holds, and every bad one is refused in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hexopt.planning.importers import TableError, read_aibrix, read_melange

MELANGE = {
    "gpu_info": {
        "small": {"cost": 1, "tputs": [[4, 1.0, 0], [2.0, 0.5, 0.25]]},
        "big": {"cost": 3.5, "tputs": [[20.0, 8.0, 4.0], [10.0, 4.0, 2.0]]},
    },
    "workload_distribution": [[0.5, 0.25, 0.0], [0.125, 0.0625, 0.0625]],
    "total_request_rate": 8.0,
    "slice_factor": 4,
}
AIBRIX = {
    "gpu": "small",
    "cost": 0.3,
    "tputs": [[8.0, 4.0, 2.0], [4.0, 2.0, 0.0]],
    "indexes": [[16, 128], [256, 1024, 4096]],
    "created": 1.0,
    "slos": {"percentile": 99, "e2e": 5.0},
}


def write(folder: Path, document: object, name: str = "table.json") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_melange_cells_are_buckets_row_by_row(tmp_path):
    table = read_melange(write(tmp_path, MELANGE))
    assert table.gpus == ("small", "big") and table.price.tolist() == [1.0, 3.5]
    assert table.buckets[1] == "input size 0, output size 1" and table.buckets[5] == "input size 1, output size 2"
    assert table.throughput.tolist() == [[4, 1, 0, 2, 0.5, 0.25], [20, 8, 4, 10, 4, 2]]
    assert table.demand.tolist() == [4.0, 2.0, 0.0, 1.0, 0.5, 0.5]


def changed(document: dict, path: str, value: object) -> dict:
    copy = json.loads(json.dumps(document))
    *parents, last = path.split("/")
    place = copy
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    if value is None:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return copy


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (changed(MELANGE, "total_request_rate", None), "total_request_rate: Field required"),
        (changed(MELANGE, "total_request_rate", 0), "total_request_rate: .*greater than 0"),
        (changed(MELANGE, "gpu_info", {}), "gpu_info: .*at least 1"),
        (changed(MELANGE, "gpu_info/small/cost", -1), r"gpu_info\.small\.cost: "),
        (changed(MELANGE, "gpu_info/small/cost", "1"), r"gpu_info\.small\.cost: .*number"),
        (changed(MELANGE, "gpu_info/big/tputs/1/2", -2), r"gpu_info\.big\.tputs\[1\]\[2\]: "),
        (changed(MELANGE, "gpu_info/big/tputs/1", [1, 2]), r"gpu_info\.big\.tputs: expected rows of one length"),
        (changed(MELANGE, "gpu_info/big/tputs", [[1]]), r"gpu_info\.big\.tputs: is 1 x 1, expected 2 x 3 as workload"),
        (changed(MELANGE, "workload_distribution/0/0", 0.9), "workload_distribution: sums to 1.4, expected 1"),
        (changed(MELANGE, "workload_distribution", []), "workload_distribution: expected rows of one length"),
        ([], "top level: "),
        ("{", "is not JSON"),
        (json.dumps(MELANGE).replace("8.0", "NaN", 1), r"gpu_info\.big\.tputs\[0\]\[1\]: .*finite"),
    ],
)
def test_bad_melange_files_are_refused(tmp_path, document, said):
    path = write(tmp_path, document)
    with pytest.raises(TableError, match=re.escape(str(path)) + ": " + said) as error:
        read_melange(path)
    assert "\n" not in str(error.value)
    with pytest.raises(TableError, match=r"none\.json: cannot be read"):
        read_melange(tmp_path / "none.json")


def test_aibrix_calls_count_as_the_next_larger_size(tmp_path):
    small = write(tmp_path, AIBRIX, "small.json")
    big = write(tmp_path, {**AIBRIX, "gpu": "big", "cost": 1, "tputs": [[9.0] * 3, [5.0] * 3]}, "big.json")
    calls = [(1, 1), (256, 16), (257, 16), (1024, 17), (4096, 128), (4000, 100), (2000, 1), (256, 128)]
    table = read_aibrix([small, big], calls, rate=4.0)
    assert table.gpus == ("small", "big") and table.price.tolist() == [0.3, 1.0]
    assert table.buckets[:2] == ("256 input, 16 output tokens", "1024 input, 16 output tokens")
    assert table.throughput.tolist() == [[8, 4, 2, 4, 2, 0], [9, 9, 9, 5, 5, 5]]
    assert (table.demand * 2).tolist() == [2, 1, 1, 1, 1, 2]


def test_aibrix_calls_beyond_the_grid_are_refused_or_clipped(tmp_path):
    path = write(tmp_path, AIBRIX)
    calls = [(10, 10), (5000, 10), (10, 129)]
    with pytest.raises(TableError, match="indexes: 2 of 3 calls are beyond the largest size, 4096 input and 128 out"):
        read_aibrix([path], calls, rate=1.0)
    table = read_aibrix([path], calls, rate=1.0, clip=True)
    assert np.allclose(table.share, [1 / 3, 0, 1 / 3, 1 / 3, 0, 0])


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (changed(AIBRIX, "gpu", None), "gpu: Field required"),
        (changed(AIBRIX, "indexes", [[16, 128]]), "indexes: .*at least 2"),
        (changed(AIBRIX, "indexes/1", [256, 256, 512]), r"indexes: input tokens are .*, expected ascending numbers"),
        (changed(AIBRIX, "indexes/0", []), r"indexes: output tokens are \[\], expected ascending"),
        (changed(AIBRIX, "tputs", [[1, 2], [3, 4], [5, 6]]), "tputs: is 3 x 2, expected 2 x 3 as indexes"),
        (changed(AIBRIX, "tputs/0/0", -1), r"tputs\[0\]\[0\]: "),
    ],
)
def test_bad_aibrix_profiles_are_refused(tmp_path, document, said):
    path = write(tmp_path, document)
    with pytest.raises(TableError, match=re.escape(str(path)) + ": " + said):
        read_aibrix([path], [(1, 1)], rate=1.0)


def test_aibrix_profiles_must_agree_and_something_must_be_served(tmp_path):
    one = write(tmp_path, AIBRIX, "one.json")
    other = write(tmp_path, changed(AIBRIX, "indexes/0", [16, 64]), "other.json")
    with pytest.raises(TableError, match=r"other\.json: indexes: are .*, but those of .*one\.json are"):
        read_aibrix([one, other], [(1, 1)], rate=1.0)
    with pytest.raises(TableError, match="gpu: 'small' is the name of another profile too"):
        read_aibrix([one, one], [(1, 1)], rate=1.0)
    with pytest.raises(TableError, match="no AIBrix profile"):
        read_aibrix([], [(1, 1)], rate=1.0)
    with pytest.raises(TableError, match="no calls to be served"):
        read_aibrix([one], [], rate=1.0)
    with pytest.raises(TableError, match="rate is 0"):
        read_aibrix([one], [(1, 1)], rate=0.0)
