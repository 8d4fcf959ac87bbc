"""The wheel in an empty environment, away from the checkout: the commands run, with the bundled data."""

import gzip
import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from foreign_paths import foreign_paths
from wheel_layout import build_wheel

ROOT = Path(__file__).resolve().parent.parent
# One worker builds the one environment.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("servers")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the commands of an environment that holds the wheel and what it needs, and not even pip."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(folder)
    done = pip(folder, "install", "--quiet", "--no-compile", str(wheel))
    unreachable = re.search(r"connection broken by.*", done.stderr)
    if done.returncode and unreachable and "HEXOPT_REQUIRE_INDEX" not in os.environ:
        pytest.skip(f"the package index cannot be reached: {unreachable[0]}")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of their own for the commands: what they compile is kept from one to the next, and nothing of before."""
    return tmp_path_factory.mktemp("home")


def pip(environment: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this environment's pip on another one."""
    command = [sys.executable, "-m", "pip", "--python", str(environment), "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run(installed: Path, home: Path, folder: Path, *command: str) -> str:
    """Run a command in ``folder``, with nothing of the checkout or of this environment to be found; its output."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "NUMBA_", "HEXOPT_"))}
    done = subprocess.run(
        [str(installed / command[0]), *command[1:]],
        cwd=folder,
        env=kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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


def test_holds_no_path_of_another_machine(wheel):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            content = gzip.decompress(content) if name.endswith(".gz") else content
            assert not foreign_paths(content) and str(ROOT).encode() not in content, name


def test_the_core_install_is_light(installed):
    names = {row["name"].lower() for row in json.loads(pip(installed.parent, "list", "--format=json").stdout)}
    assert "hexopt" in names
    assert not names & {"torch", "pandas", "pyarrow", "vllm", "ray", "aiconfigurator-core"}


def test_says_its_version(installed, home, tmp_path, wheel):
    assert run(installed, home, tmp_path, "hexopt", "--version").strip() == wheel.name.split("-")[1]


def test_demo_runs(installed, home, tmp_path):
    printed = run(installed, home, tmp_path, "hexopt", "demo")
    numbers = r"\s+([\d,.]+)" * 3
    p95 = {}
    for policy, *_, value in re.findall(rf"^ ([a-z]\S+){numbers} ", printed, re.MULTILINE):
        p95.setdefault(policy, []).append(float(value.replace(",", "")))
    assert len(p95) == 7 and all(len(values) == 3 for values in p95.values()), printed
    assert all(2.5 * ours < plain for ours, plain in zip(p95["greedy-urgency"], p95["round-robin"], strict=True))
    assert (tmp_path / "hexopt-demo.html").stat().st_size > 1_000_000


@pytest.mark.parametrize(("sample", "workflows"), [("text-to-sql", 300), ("coding-agent", 200)])
def test_samples_are_found(installed, home, tmp_path, sample, workflows):
    described = json.loads(run(installed, home, tmp_path, "hexopt", "traces", "info", sample, "--json"))
    assert described["workflows"] == workflows


def test_training_finds_the_profiles(installed, home, tmp_path):
    run(installed, home, tmp_path, "hexopt", "train", "--out", "models-out")
    written = {path.name for path in (tmp_path / "models-out").iterdir()}
    assert {"latency.json", "errors.csv", "model-card.md", "roofline.skops"} <= written


def test_help_is_quick_to_import(installed, home, tmp_path):
    code = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("imported:", [m for m in ("numba", "sklearn", "scipy", "plotly") if m in sys.modules])
"""
    printed = run(installed, home, tmp_path, "python", "-c", code, str(installed / "hexopt"))
    assert "Usage: hexopt" in printed
    assert printed.splitlines()[-1] == "imported: []"
