"""``hexopt profile``: input that cannot be used is refused in one line, before anything is measured."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from command_line import call

PROFILE = ("--profiles", "p", "--gpu", "my-gpu", "--llm", "my-llm")
ABOUT = {"engine": "vLLM 1", "model": "m", "tp": 2, "pp": 1, "kv_tokens": 5000, "clock": "wall"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--prompt-lengths", "64,x"), "--prompt-lengths is '64,x', expected numbers with commas"),
        (("--prompt-lengths", "64,8"), "--prompt-lengths is '64,8', expected each at least 32"),
        (("--concurrency", "0"), "--concurrency is '0', expected each at least 1"),
        (("--hits", "0,1"), "--hits is '0,1', expected each at least 0 and below 1"),
        (("--hits", "nan"), "--hits is 'nan', expected each at least 0"),
        (("--endpoints", "chat,embed"), "--endpoints is 'chat,embed', expected some of chat, completion"),
        (("--profiles", "p", "--llm", "m"), "--gpu is missing"),
        (("--profiles", "p", "--gpu", "h100"), "--llm is missing"),
        (("--profiles", "p", "--gpu", "My_GPU", "--llm", "m"), "--gpu is 'My_GPU', expected lower-case letters"),
        ((*PROFILE, "--concurrency", "1"), "--concurrency: expected one of at least 2 too"),
        (("--out", "nowhere/profile.csv"), "--out nowhere/profile.csv: there is no folder nowhere"),
    ],
)
def test_bad_flags_of_a_server(
    flags: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = call(capsys, monkeypatch, "profile", "vllm", "--url", "http://127.0.0.1:1", *flags)
    assert answer.code == 2 and answer.out == "" and words in answer.err and answer.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        answer = call(capsys, monkeypatch, "profile", "vllm", "--url", url)
    assert answer.code == 2 and f"hexopt: {url}/v1/models: " in answer.err and answer.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "expected one of --model and --steps"),
        (("--model", "m", "--steps", "s.csv"), "expected one of --model and --steps"),
        (("--model", "m", "--engine-args", "{"), "--engine-args: is not JSON"),
        (("--model", "m", "--engine-args", "[1]"), "--engine-args: expected a JSON object"),
        (("--model", "m", "--python", "no-such-python"), "--python no-such-python: cannot be run: No such file"),
        (("--model", "m", "--python", "false"), "vLLM could not be profiled with false: it ended with status 1"),
        (("--steps", "s.csv"), "s.csv: was measured at tp=2, pp=1, expected --tp 1 --pp 1"),
        (
            ("--steps", "s.csv", "--tp", "2"),
            "the steps of my-llm on my-gpu at tp=2, pp=1 are 1 groups and 0 steps beyond",
        ),
        (("--steps", "t.csv"), "t.json: cannot be read"),
    ],
)
def test_bad_flags_of_an_engine(
    flags: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    header = "group,beyond,n_prefill,prefill_tokens,prefill_cached,n_decode,decode_context,seconds\n"
    Path("s.csv").write_text(header + "0,0,1,10,0,0,0,0.1\n")
    Path("s.json").write_text(json.dumps(ABOUT))
    answer = call(capsys, monkeypatch, "profile", "vllm-engine", *PROFILE, *flags)
    assert answer.code == 2 and words in answer.err and answer.err.count("\n") == 1
    assert not Path("p").exists()
