"""Profiles of real vLLM servers and engines: what they hold is what was asked for, and ``hexopt`` learns from them."""

from __future__ import annotations

import csv
from itertools import count
from pathlib import Path

import pytest
from command_line import call, spawn
from vllm_servers import MAX_NUM_SEQS, MODELS, PYTHON, VllmServers, require_vllm, vllm_environment

from hexopt.models.profiling.frozen import read_profile
from hexopt.models.profiling.steps import read_about, read_steps
from hexopt.profiling.measurements import COLUMNS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vllm")]
SMALL = ("--prompt-lengths", "48,300", "--concurrency", "1,3", "--repeats", "1")
NAMED = ("--gpu", "cpu-core", "--llm", "tiny")
SEEDS = count()
"""Tried again with the same prompts, a test would find them all in the server's cache."""


def test_a_running_server_is_measured(
    vllm_servers: VllmServers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, folder = tmp_path / "profile.csv", tmp_path / "profiles"
    flags = (*SMALL, *NAMED, "--out", out, "--profiles", folder, "--seed", next(SEEDS))
    assert call(capsys, monkeypatch, "profile", "vllm", "--url", vllm_servers[0], *flags).code == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    asked = {
        (length, at_once, kind) for length in (48, 300, 450) for at_once in (1, 3) for kind in ("chat", "completion")
    }
    assert len(rows) == 2 * len(asked) and len({row["point"] for row in rows}) == len(asked)
    for row in rows:
        prompt, cached, at_once = (int(row[name]) for name in ("prompt_tokens", "cached_tokens", "concurrency"))
        length = min((48, 300, 450), key=lambda n: abs(n - prompt))
        assert abs(prompt - length) < 0.2 * length and (length, at_once, row["endpoint"]) in asked
        assert row["beyond"] == str(int(length == 450))
        # vLLM on a processor caches blocks of 128 tokens.
        assert cached % 128 == 0 and cached <= prompt
        assert float(row["ttft_s"]) > 0 and float(row["inter_token_s"]) > 0
        assert (int(row["others_context"]) > 0) == (at_once > 1) and int(row["decode_context"]) > prompt
        assert at_once > 1 or row["stall_s"] == ""
    assert {int(row["cached_tokens"]) for row in rows if abs(int(row["prompt_tokens"]) - 300) < 60} == {0, 128}
    assert any(row["stall_s"] for row in rows)
    profile = read_profile(folder / "cpu-core_tiny_tp1pp1.csv")
    assert profile.provenance.engine == "vLLM 0.32.0" and profile.provenance.running_engine
    # A GiB of cache for two layers of two heads of 32 values of two bytes, keys and values.
    assert profile.provenance.kv_tokens == 2**30 // (2 * 2 * 2 * 32 * 2)
    assert set(profile.n_decode.tolist()) == {1, 2, 3}


def test_more_calls_than_run_at_once_are_refused(
    vllm_servers: VllmServers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flags = ("--prompt-lengths", "48", "--concurrency", str(2 * MAX_NUM_SEQS), "--out", tmp_path / "profile.csv")
    answer = call(capsys, monkeypatch, "profile", "vllm", "--url", vllm_servers[0], *flags)
    assert answer.code == 2 and "Traceback" not in answer.err
    assert f"runs {MAX_NUM_SEQS} of {2 * MAX_NUM_SEQS} calls of 48 tokens at once" in answer.err
    long = call(
        capsys, monkeypatch, "profile", "vllm", "--url", vllm_servers[0], "--prompt-lengths", "8000", *flags[4:]
    )
    assert long.code == 2 and "takes 8192 tokens, but 1.5 times the longest prompt" in long.err
    assert not list(tmp_path.iterdir())


def test_an_engine_is_timed_and_simulated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require_vllm()
    for key, value in vllm_environment(0).items():
        monkeypatch.setenv(key, value)
    # The threads of one process would wait for each other by spinning.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = '{"max_model_len": 1024, "max_num_seqs": 8, "max_num_batched_tokens": 512, "enforce_eager": true}'
    flags = ("--model", MODELS[0], "--load-format", "dummy", "--python", PYTHON, "--engine-args", arguments)
    flags += ("--seconds", 15, "--repeats", 1, "--clock", "cpu", "--out", tmp_path / "steps.csv")
    done = spawn("profile", "vllm-engine", *flags, *NAMED, "--profiles", tmp_path / "profiles")
    assert done.code == 0, done.err
    about, steps = read_about(tmp_path / "steps.csv"), read_steps(tmp_path / "steps.csv")
    assert (about.engine, about.clock) == ("vLLM 0.32.0", "cpu")
    assert {(step.n_prefill > 0, step.n_decode > 0) for step in steps} >= {(True, False), (False, True)}
    for step in steps:
        assert step.n_prefill + step.n_decode <= 8 and step.prefill_tokens + step.n_decode <= 512
        assert step.decode_context <= 1024 * step.n_decode
        assert step.prefill_tokens + step.prefill_cached <= 1024 * step.n_prefill
    assert any(step.prefill_cached for step in steps) and any(step.beyond for step in steps)
    done = spawn("train", "--profiles", tmp_path / "profiles", "--out", tmp_path / "models")
    assert done.code == 0, done.err
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('latency = "models/latency.json"\nllm = "tiny"\n[[instance]]\ngpu = "cpu-core"\ncount = 2\n')
    run = spawn("simulate", "--trace", "text-to-sql", "--cluster", fleet, "--workflows", 20, "--rate", 0.01, "--json")
    assert run.code == 0, run.err
