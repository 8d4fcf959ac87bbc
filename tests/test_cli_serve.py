"""``hexopt serve`` as a user starts it: what it refuses, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from command_line import call
from mock_server import MockServer
from running_service import Running, free_port, wait_until

pytestmark = pytest.mark.xdist_group("servers")

TABLE = 'llm = "llama-3.1-70b"\n[[instance]]\nname = "only"\ngpu = "a100"\n'


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    file = tmp_path / "c.toml"
    file.write_text(TABLE + 'url = "http://127.0.0.1:9"\n')
    return file


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing option '--cluster'"),
        (("--cluster", "hetero-1"), "instance 'a100-0' has no url"),
        (("--cluster", "nowhere"), "cluster 'nowhere' is neither a file nor a bundled cluster"),
        (("--host", "0.0.0.0"), "--host 0.0.0.0 is not loopback: set a key with --api-key or HEXOPT_API_KEY"),
        (("--policy", "magic"), "policy 'magic' is unknown"),
        (("--policy", "clairvoyant:order=laxity"), "policy 'clairvoyant' is for simulations only; the service takes"),
        (("--shadow", "justitia-style"), "policy 'justitia-style' is for simulations only"),
        (("--policy", "edf", "--weights", "latency"), "--weights belongs to --policy rolling-horizon"),
        (("--weights", "beauty"), "objective 'beauty' is unknown"),
        (("--shadow", "magic"), "policy 'magic' is unknown"),
        (("--slo", "0"), "--default-slo is 0.0, expected more than 0 seconds"),
        (("--max-queue", "0"), "--max-queue is 0, expected at least 1"),
        (("--port", "70000"), "--port is 70000, expected 0 to 65535"),
        (("--api-key", "a b"), "--api-key holds a space"),
        (("--tune", "sometimes"), "--tune sometimes: expected off, propose or apply"),
        (("--tune", "apply", "--store", ""), "--tune apply searches the traffic in the store: give --store"),
        (("--tune", "propose", "--tune-objective", "beauty"), "--tune-objective 'beauty' is unknown"),
        (("--trace", "nowhere"), "--trace nowhere: no such file"),
        (("--log-level", "loud"), "--log-level loud: expected debug, info, warning or error"),
        (("--store", "nonsense"), "nonsense"),
        (("--store", "sqlite:////nowhere/x.db"), "/nowhere"),
    ],
)
def test_bad_input_is_one_clear_line(capsys, monkeypatch, cluster, arguments, words):
    given = arguments if not arguments or "--cluster" in arguments else ("--cluster", cluster, *arguments)
    result = call(capsys, monkeypatch, "serve", *given)
    assert result.code == 2 and words in result.err and result.err.count("\n") == 1 and result.out == ""


def test_at_its_end_it_finishes_what_it_has_and_takes_nothing_more(tmp_path: Path) -> None:
    mock = MockServer()
    server = Running(mock)
    file = tmp_path / "c.toml"
    file.write_text(TABLE + f'url = "{server.url}"\n')
    port = free_port()
    script = Path(sys.executable).with_name("hexopt")
    command = [script, "serve", "--cluster", file, "--port", str(port), "--store", f"sqlite:///{tmp_path}/s.db"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, "--policy", "greedy-urgency"], stderr=log)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return httpx.get(url + "/readyz").status_code == 200
        except httpx.TransportError:
            assert process.poll() is None, (tmp_path / "log").read_text()
            return False

    try:
        wait_until(ready, 240.0)
        mock.delay = 1.5
        with ThreadPoolExecutor(8) as pool:
            body = {"model": "m", "prompt": "x", "max_tokens": 5}
            calls = [pool.submit(httpx.post, url + "/v1/completions", json=body, timeout=60.0) for _ in range(8)]
            wait_until(lambda: mock.running == 8)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(httpx.TransportError):
                httpx.post(url + "/v1/completions", json=body, timeout=5.0)
            assert [c.result().status_code for c in calls] == [200] * 8
        assert process.wait(30.0) == 0
    finally:
        process.kill()
        server.stop(at_once=True)
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert any(row["message"].endswith("is up") for row in rows)
    assert mock.finished == 8
