"""``hexopt emulate`` as a user starts it, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import call

from hexopt.cluster import cluster_toml, load_cluster


def test_the_cluster_file_it_writes_is_the_cluster_as_fast_as_it_is_emulated(tmp_path):
    fleet = load_cluster("hetero-1")
    file = tmp_path / "live.toml"
    file.write_text(cluster_toml(fleet, [f"http://127.0.0.1:{9000 + k}" for k in range(4)], 20.0))
    live = load_cluster(file)
    assert [replace(i, speed=i.speed / 20.0, url="") for i in live.instances] == list(fleet.instances)
    assert [i.url[-4:] for i in live.instances] == ["9000", "9001", "9002", "9003"]
    assert live.name == fleet.name


ONE = ("emulate", "--gpu", "a100", "--llm", "llama-3.1-8b")


def test_it_serves_a_cluster_until_interrupted(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('llm = "llama-3.1-8b"\n[[instance]]\ngpu = "l40s"\ncount = 2\n')
    script = Path(sys.executable).with_name("hexopt")
    command = [script, "emulate", "--cluster", file, "--port", "0", "--speed-up", "100", "--served-model-name", "mine"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(2)]
        assert [name for _, name in lines] == ["l40s-0", "l40s-1"] and lines[0][0] != lines[1][0]
        for url, _ in lines:
            body = json.dumps({"model": "mine", "prompt": "x", "max_tokens": 5, "ignore_eos": True}).encode()
            with urllib.request.urlopen(f"{url}/v1/completions", body, timeout=20) as response:
                assert json.load(response)["usage"]["completion_tokens"] == 5
    finally:
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=20)
    assert process.returncode == 0 and "Traceback" not in complaint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("emulate",), "--gpu is missing: give --gpu and --llm, or --cluster"),
        (("emulate", "--gpu", "a100"), "--llm is missing"),
        (("emulate", "--gpu", "z9", "--llm", "llama-3.1-8b"), "unknown GPU 'z9'"),
        ((*ONE, "--max-num-seqs", "0"), "max_num_seqs: Input should be greater than or equal to 1"),
        ((*ONE, "--speed-up", "0"), "--speed-up is 0.0, expected more than 0"),
        ((*ONE, "--port", "70000"), "port is 70000, expected 0 to 65535"),
        (("emulate", "--cluster", "hetero-1", "--tp", "4"), "--tp: with --cluster"),
        (("emulate", "--cluster", "hetero-1", "--no-prefix-caching"), "--no-prefix-caching: with --cluster"),
        (("emulate", "--cluster", "nowhere"), "cluster 'nowhere' is neither a file nor a bundled cluster"),
    ],
)
def test_bad_input_is_one_clear_line(capsys, monkeypatch, arguments, words):
    result = call(capsys, monkeypatch, *arguments)
    assert result.code == 2 and words in result.err and result.err.count("\n") == 1 and result.out == ""
