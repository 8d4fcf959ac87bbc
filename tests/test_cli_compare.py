import hashlib
import json
import re
from pathlib import Path

import pytest
from command_line import call
from research_cases import toml

from hexopt.policies.registry import POLICIES

DOCS = Path(__file__).resolve().parent.parent / "docs" / "research.md"
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def hexopt(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call(capsys, monkeypatch, *arguments)


def test_compare_writes_everything(hexopt, tmp_path):
    tuned = ("[[tuned]]", 'policy = "hexgen-flow"', 'parameter = "alpha"', "values = [0.0, 0.5]")
    toml(tmp_path / "mine.toml", *tuned, tuning_seeds="1")
    done = hexopt("compare", "mine.toml", "--jobs", 1, "--resume", "kept")
    assert done.code == 0, done.err
    assert "hexgen-flow (alpha tuned)" in done.out and "Req99 is left out" in done.err
    out = tmp_path / "comparison-mine"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["experiment"]["text"] == (tmp_path / "mine.toml").read_text()
    assert manifest["seeds"] == [0, 1] and manifest["tuning_seeds"] == [1000]
    assert manifest["software"]["packages"]["numpy"] and manifest["started"] <= manifest["ended"]
    written = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert written == set(manifest["files"]) | {"manifest.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert {
        "runs.parquet",
        "workflows.parquet",
        "report.html",
        "tables/comparison.csv",
        "tables/comparison.md",
    } <= written
    assert pq.read_table(out / "runs.parquet").num_rows == 3 * 2 + 2
    kept = sorted((tmp_path / "kept").rglob("*.pickle"))
    again = hexopt("compare", "mine.toml", "--jobs", 1, "--resume", "kept")
    assert again.code == 0 and again.out == done.out
    assert sorted((tmp_path / "kept").rglob("*.pickle")) == kept
    toml(tmp_path / "mine.toml", seeds="3")
    refused = hexopt("compare", "mine.toml", "--jobs", 1)
    assert refused.code == 2 and "comparison-mine: holds other results" in refused.err


def test_the_policy_of_the_documentation(hexopt, tmp_path, monkeypatch):
    """The worked example, copied out of the page, against round-robin, in worker processes too."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    example = next(block for block in blocks if "(Policy)" in block)
    assert len(example.splitlines()) <= 30
    (tmp_path / "cheapest_wait.py").write_text(example)
    toml(
        tmp_path / "own.toml", policy_files='["cheapest_wait.py"]', baseline='"round-robin"', rates="[0.2]",
        policies='["round-robin", "cheapest-wait:patience=0.2"]', workflows="40",
    )  # fmt: skip
    try:
        done = hexopt("compare", "own.toml", "--jobs", 2, "--out", "there")
    finally:
        POLICIES.pop("cheapest-wait", None)
    assert done.code == 0, done.err
    rows = pq.read_table(tmp_path / "there" / "runs.parquet").to_pylist()
    p95 = {p: [r["p95_s"] for r in rows if r["policy"] == p] for p in ("round-robin", "cheapest-wait")}
    assert len(p95["cheapest-wait"]) == 2
    assert all(a < b for a, b in zip(p95["cheapest-wait"], p95["round-robin"], strict=True))
    manifest = json.loads((tmp_path / "there" / "manifest.json").read_text())
    assert manifest["experiment"]["policy_files"] == {"cheapest_wait.py": example}


def test_the_python_of_the_documentation(capsys):
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    example = next(block for block in blocks if "run_grid" in block)
    exec(compile(example, str(DOCS), "exec"), {})
    assert re.fullmatch(r"\[\s*[\d.]+\s+[\d.]+\s*\]\n", capsys.readouterr().out)


def test_the_experiment_of_the_documentation(tmp_path):
    from hexopt.research import load_definition
    from hexopt.research.contestants import contestants

    blocks = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    (tmp_path / "e.toml").write_text("\n".join(blocks))
    definition, _, _ = load_definition(str(tmp_path / "e.toml"))
    assert len(blocks) == 3 and len(definition.conditions) == 6 and len(definition.gantt) == 1
    assert len(contestants(definition)) == 4


def test_the_bar_counts_through_all_lots():
    from hexopt.cli.parallel import Lots

    seen = []
    progress = Lots(lambda done, total: seen.append((done, total)), 5)
    for lot in (2, 3):
        for done in range(lot + 1):
            progress(done, lot)
    assert seen == [(0, 5), (1, 5), (2, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_traces_in_a_folder(hexopt, tmp_path):
    toml(tmp_path / "mine.toml", files='[{ source = "a.jsonl", training = "b.jsonl" }]')
    (tmp_path / "folder").mkdir()
    for seed, name in enumerate(("a", "b")):
        made = hexopt("traces", "synth", "text-to-sql", f"folder/{name}.jsonl", "--workflows", 30, "--seed", seed)
        assert made.code == 0
    done = hexopt("compare", "mine.toml", "--jobs", 1, "--traces", "folder")
    assert done.code == 0, done.err
    assert "a on hetero-1" in done.out


@pytest.mark.parametrize(
    ("changes", "flags", "says"),
    [
        ({"traces": '["nowhere.jsonl"]'}, (), "traces[0].source nowhere.jsonl: no such file"),
        ({"traces": '[{ source = "text-to-sql", training = "nowhere" }]'}, (), "traces[0].training nowhere: no such"),
        ({"clusters": '["nowhere"]'}, (), "cluster 'nowhere' is neither"),
        ({"policies": '["fastest"]'}, (), "policy 'fastest' is unknown"),
        ({"baseline": '"llf"'}, (), "baseline: 'llf' is not compared"),
        ({}, ("--traces", "nowhere"), "--traces nowhere: there is no such folder"),
        ({}, ("--traces", "."), "--traces .: the experiment lists no files"),
        ({}, ("--out", "mine.toml"), "--out mine.toml: mine.toml is a file, expected a folder"),
        ({"seeds": "-1"}, (), "mine.toml: seeds: Input should be greater than or equal to 1"),
    ],
)
def test_bad_input_is_one_line(hexopt, tmp_path, changes, flags, says):
    toml(tmp_path / "mine.toml", **changes)
    done = hexopt("compare", "mine.toml", "--jobs", 1, *flags)
    assert done.code == 2 and not done.out
    assert says in done.err and len(done.err.splitlines()) == 1
    assert not (tmp_path / "comparison-mine").exists()


def test_without_pyarrow_it_says_what_to_install(hexopt, tmp_path, monkeypatch):
    toml(tmp_path / "mine.toml")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    done = hexopt("compare", "mine.toml")
    assert done.code == 2 and "pip install 'hexopt[parquet]'" in done.err and len(done.err.splitlines()) == 1
