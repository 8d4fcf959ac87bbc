"""The wheel in an empty environment, away from the checkout: the commands run, with the bundled data."""

import json
import os
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest
from wheel_layout import build_wheel

ROOT = Path(__file__).resolve().parent.parent
# One worker builds the one environment.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the commands of an environment that holds the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True, check=False)
    if done.returncode and "HEXOPT_REQUIRE_ALL" not in os.environ:
        pytest.skip(f"the wheel's dependencies cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def hexopt(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in ``folder``, with nothing of the checkout or of this environment to be found."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(installed / "hexopt"), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )


def test_holds_the_data_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"hexopt", wheel.name.split("-py3")[0] + ".dist-info"}
    held = {name.removeprefix("hexopt/") for name in names if name.startswith("hexopt/")}
    expected = {"py.typed"}
    for room in ("clusters", "models", "traces", "solvers", "hexopt"):
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add(str(path.relative_to(ROOT)).removeprefix("hexopt/"))
    assert held == expected
    assert any(name.endswith("/LICENSE") for name in names)


def test_the_core_install_is_light(installed):
    listed = subprocess.run(
        [str(installed / "python"), "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
    )
    names = {row["name"].lower() for row in json.loads(listed.stdout)}
    assert "hexopt" in names
    assert not names & {"torch", "pandas", "pyarrow", "vllm", "ray", "aiconfigurator-core"}


def test_demo_runs(installed, tmp_path):
    done = hexopt(installed, tmp_path, "demo", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 18 and len({row["policy"] for row in rows}) == 6
    ours = [row["p95_s"] for row in rows if row["policy"] == "greedy-urgency"]
    plain = [row["p95_s"] for row in rows if row["policy"] == "round-robin"]
    assert all(2.5 * a < b for a, b in zip(ours, plain, strict=True))
    assert (tmp_path / "hexopt-demo.html").stat().st_size > 1_000_000


def test_samples_clusters_and_training_are_found(installed, tmp_path):
    described = json.loads(hexopt(installed, tmp_path, "traces", "info", "coding-agent", "--json").stdout)
    assert described["workflows"] == 200
    hexopt(installed, tmp_path, "train", "--out", "models")
    assert "latency.json" in {path.name for path in (tmp_path / "models").iterdir()}


def test_help_is_quick_to_import(installed, tmp_path):
    code = "import sys, hexopt.cli; print([m for m in ('numba', 'sklearn', 'scipy', 'plotly') if m in sys.modules])"
    done = subprocess.run(
        [str(installed / "python"), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
