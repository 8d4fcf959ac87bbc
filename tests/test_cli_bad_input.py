"""Every mistake ends in exit code 2 and one line that names it; nothing was simulated, nothing half-written."""

from __future__ import annotations

import gzip

import pytest
from command_line import call, spawn

from hexopt.simulation.experiment import Experiment
from hexopt.traces.samples import sample_path

TRACE, CLUSTER = ("--trace", "text-to-sql"), ("--cluster", "hetero-1")
RUN = ("simulate", *TRACE, *CLUSTER)
SYNTH = ("traces", "synth")

BAD_FLAGS = [
    (("--rate", "0"), "hexopt: --rate is 0.0, expected more than 0"),
    (("--rate", "-1"), "--rate is -1.0"),
    (("--rate", "nan"), "--rate is nan"),
    (("--rate", "inf"), "--rate is inf"),
    (("--rate", "fast"), "hexopt simulate: Invalid value for '--rate'"),
    (("--load", "0"), "--load is 0.0"),
    (("--rate", "1", "--load", "1"), "--rate and --load"),
    (("--load", "0.5", "--slo", "0.001"), "--load: too few workflows meet their deadlines"),
    (("--load", "0.5", "--slo", "1e9"), "--load: most workflows meet their deadlines"),
    (("--seed", "-1"), "--seed is -1"),
    (("--seed", "1.5"), "Invalid value for '--seed'"),
    (("--workflows", "0"), "--workflows is 0"),
    (("--workflows", "100000"), "--workflows is 100000, but the trace has 300"),
    (("--slo", "-3"), "--slo is -3.0"),
    (("--slo-factor", "0"), "--slo-factor is 0.0"),
    (("--until", "0"), "--until is 0.0"),
    (("--event", "soon"), "event 'soon': expected 'NAME down at 300s for 120s'"),
    (("--event", "x down at 3s"), "event 'x down at 3s': Hetero-1 has no such instance; it has a100-0"),
    (("--burstiness", "0"), "--burstiness is 0.0"),
    (("--rate", "1", "--arrivals", "gamma", "--burstiness", "1e200"), "burstiness is 1e+200, expected a number from"),
    (("--period", "0"), "--period is 0.0"),
    (("--arrivals", "bursty"), "Invalid value for '--arrivals'"),
    (("--policy", "best"), "policy 'best' is unknown; there are round-robin"),
    (("--policy", "edf", "--policy", "hexgen-flow:alpha=2"), "alpha is 2, expected 0 to 1"),
    (("--policy", "hexgen-flow:gamma=1"), "it takes alpha, as_shipped"),
    (("--format", "csv"), "format is 'csv', expected one of agentic-mooncake"),
    (("--training", "no-such"), "--training no-such: no such file"),
    (("--colour", "red"), "hexopt simulate: No such option: --colour"),
    (("--rate",), "requires an argument"),
    (("extra",), "unexpected extra argument"),
]

BAD_TRACES = [
    ("nothing.jsonl", None, "no such file"),
    ("empty.jsonl", b"", "is empty"),
    ("cut.jsonl.gz", sample_path("text-to-sql").read_bytes()[:-500], "cut.jsonl.gz"),
    ("packed.jsonl.gz", b"\x1f\x8b" + b"no gzip" * 9, "packed.jsonl.gz"),
    ("picture.png", bytes(range(256)) * 40, "picture.png"),
    ("notes.txt", b"dear diary\n", "its format is not recognised"),
    ("list.json", b"[1, 2", "list.json"),
    ("half.jsonl", gzip.decompress(sample_path("text-to-sql").read_bytes())[:-40], "half.jsonl"),
    ("folder", "folder", "holds no file that ends in"),
]

BAD_CLUSTERS = [
    (None, "fleet.toml: cannot be read"),
    ('llm = "llama-3.1-8b"\n[[instance]]\ngpu = "gtx"', "instance[0]: unknown GPU 'gtx'"),
    ('llm = "llama-3.1-70b"\n[[instance]]\ngpu = "a6000"\ntp = 1', "instance[0]: llama-3.1-70b on a6000"),
    ('llm = "llama-3.1-8b"\n[[instance]]\ngpu = "h100"\npace = 2', "instance[0].pace: Extra inputs"),
    ('llm = "llama-3.1-8b"\n[[instance]]\ngpu = "h100"\nspeed = 0', "instance[0].speed: Input should be greater"),
    ('llm = "llama-3.1-8b"\n[[instance]]\ngpu = "h100"\nspeed = nan', "instance[0].speed: Input should be"),
    ('llm = "llama-3.1-8b"\n[[instance]]\ngpu = "h100"\nmax_model_len = 500', "longest is 500 tokens"),
    ('llm = "llama-3.1-8b"\n[[instance]]\ngpu = "h100"\nkv_tokens = 320', "longest is 304 tokens"),
]


@pytest.fixture
def refused(capsys, monkeypatch, tmp_path):
    """Call the command, check how it ends, and return its one line."""

    def check(*arguments: object) -> str:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        result = call(capsys, monkeypatch, *arguments)
        assert (result.code, result.out) == (2, "")
        assert result.err.endswith("\n") and result.err.count("\n") == 1, result.err
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return result.err

    return check


@pytest.mark.parametrize(("flags", "says"), BAD_FLAGS, ids=lambda x: " ".join(x) if isinstance(x, tuple) else "")
def test_refuses_bad_flags(refused, flags, says):
    assert says in refused(*RUN, *flags)


@pytest.mark.parametrize(("name", "content", "says"), BAD_TRACES, ids=lambda x: x if isinstance(x, str) else "")
def test_refuses_bad_traces(refused, tmp_path, name, content, says):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
        (path / "readme.md").write_text("nothing here")
    elif content is not None:
        path.write_bytes(content)
    for arguments in (
        ("simulate", "--trace", path, *CLUSTER),
        ("traces", "info", path),
        ("traces", "convert", path, tmp_path / "out.jsonl"),
    ):
        line = refused(*arguments)
        assert says in line and name in line


def test_refuses_a_folder_of_a_format_that_is_one_file(refused, tmp_path):
    (tmp_path / "calls.jsonl").write_text("{}")
    assert "is a folder; mooncake is read from one file" in refused(
        "simulate", "--trace", tmp_path, "--format", "mooncake", *CLUSTER
    )


@pytest.mark.parametrize(("text", "says"), BAD_CLUSTERS, ids=lambda x: "" if x is None else x.split("\n")[-1])
def test_refuses_bad_clusters(refused, tmp_path, text, says):
    if text is not None:
        (tmp_path / "fleet.toml").write_text(text)
    assert says in refused("simulate", *TRACE, "--cluster", tmp_path / "fleet.toml")


@pytest.mark.parametrize("flag", ["--export", "--page"])
def test_refuses_a_place_to_write_before_it_simulates(refused, tmp_path, monkeypatch, flag):
    monkeypatch.setattr(Experiment, "run", lambda *_, **__: pytest.fail("simulated first"))
    (tmp_path / "taken.json").mkdir()
    assert "there is no folder" in refused(*RUN, flag, tmp_path / "nowhere" / "run.json")
    assert "is a folder, expected a file" in refused(*RUN, flag, tmp_path / "taken.json")
    if flag == "--export":
        for name in ("run.csv", "run", "run.parquet.gz", "json"):
            assert "expected a name that ends in .json, .trace.json or .parquet" in refused(*RUN, flag, tmp_path / name)
    assert "there is no folder" in refused("demo", "--out", tmp_path / "nowhere" / "page.html")


def test_refuses_bad_synthesis(refused, tmp_path):
    out = tmp_path / "out.jsonl"
    assert "family is 'opera', expected one of text-to-sql" in refused(*SYNTH, "opera", out)
    for rate in ("0", "-2", "nan"):
        assert "rate is" in refused(*SYNTH, "chat", out, "--rate", rate)
    assert "Invalid value for '--workflows'" in refused(*SYNTH, "chat", out, "--workflows", "0")
    assert "Invalid value for '--seed'" in refused(*SYNTH, "chat", out, "--seed", "-1")
    assert "Missing argument" in refused(*SYNTH, "chat")
    assert "cannot be written" in refused(*SYNTH, "chat", tmp_path / "nowhere" / "out.jsonl")
    assert "Invalid value for '--block-size'" in refused("traces", "convert", "text-to-sql", out, "--block-size", "0")


def test_refuses_folders_that_are_files_before_it_trains(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("hexopt.models.training.train", lambda *_, **__: pytest.fail("trained first"))
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "models"):
        assert f"{tmp_path / 'file'} is a file, expected a folder" in refused("train", "--out", out)
        assert f"{tmp_path / 'file'} is a file" in refused("profile", "aiconfigurator", "--out", out)
    assert "nothing: holds no profile" in refused(
        "train", "--out", tmp_path / "new", "--profiles", tmp_path / "nothing"
    )


def test_says_which_extra_is_missing(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("hexopt.models.profiling.aiconfigurator.PACKAGE", "no-such-package")
    assert "pip install 'hexopt[profiles]'" in refused("profile", "aiconfigurator", "--out", tmp_path / "profiles")
    monkeypatch.setattr("hexopt.cli.simulate.find_spec", lambda _: None)
    assert "pip install 'hexopt[parquet]'" in refused(*RUN, "--export", tmp_path / "run.parquet")


def test_refuses_unknown_commands(refused):
    line = refused("simulat")
    assert line.startswith("hexopt: No such command 'simulat'") and line.endswith("(see hexopt --help)\n")
    assert refused("--verbose").startswith("hexopt: No such option: --verbose")
    assert refused("traces", "draw").startswith("hexopt traces: No such command 'draw'")
    assert refused("simulate", *CLUSTER).startswith("hexopt simulate: Missing option '--trace'")


def test_a_process_of_its_own_ends_in_the_same_way(tmp_path):
    for arguments, says in ((("--export", tmp_path / "run.csv"), "--export"), (("--wrong",), "No such option")):
        result = spawn(*RUN, *arguments)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
        assert says in result.err and "Traceback" not in result.err
    assert not list(tmp_path.iterdir())
