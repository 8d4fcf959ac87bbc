"""What is packaged is what is there: folders, public names, docstrings, links, and nothing of another machine."""

import gzip
import importlib
import inspect
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from foreign_paths import foreign_paths

import hexopt

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    page
    for page in (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "benchmarks").rglob("*.md"),
        *(ROOT / "docs").glob("*.md"),
    )
    if page.exists()
]
FACES = ("hexopt.traces", "hexopt.models", "hexopt.policies", "hexopt.simulation", "hexopt.report", "hexopt.solvers")


def libraries() -> list[str]:
    """Every public module, in the folders where the checkout keeps them."""
    names = ["hexopt"]
    for package in ("hexopt", "hexopt.traces", "hexopt.models", "hexopt.solvers"):
        path = importlib.import_module(package).__path__
        names += [info.name for info in pkgutil.walk_packages(path, f"{package}.") if "._" not in info.name]
    return sorted(dict.fromkeys(names))


def test_the_project_lists_every_package_and_no_other():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        path.parent.relative_to(ROOT)
        for room in ("hexopt", "traces", "models", "solvers", "clusters")
        for path in (ROOT / room).rglob("__init__.py")
    }
    names = {".".join(("hexopt", *f.parts) if f.parts[0] != "hexopt" else f.parts): str(f) for f in folders}
    assert sorted(table["packages"]) == sorted(names)
    moved = {
        name: folder for name, folder in names.items() if not name.startswith("hexopt.") or "hexopt/" not in folder
    }
    assert table["package-dir"] == moved


@pytest.mark.parametrize("name", libraries())
def test_everything_public_is_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__, name
    for key, value in vars(module).items():
        value = getattr(value, "py_func", value)
        if key.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if value.__module__ == name:
            assert inspect.getdoc(value), f"{name}.{key} has no docstring"


@pytest.mark.parametrize("name", libraries())
def test_a_module_holds_what_it_says(name):
    module = importlib.import_module(name)
    for key in getattr(module, "__all__", ()):
        assert getattr(module, key) is not None


@pytest.mark.parametrize("name", FACES)
def test_a_public_face_has_no_other_name(name):
    module = importlib.import_module(name)
    with pytest.raises(AttributeError):
        _ = module.no_such_name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_what_exists(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    for name in re.findall(r"`(hexopt(?:\.\w+)+)`", text):
        parts = name.split(".")
        found = hexopt
        for k, part in enumerate(parts[1:], 2):
            found = getattr(found, part, None) or importlib.import_module(".".join(parts[:k]))
    for name in re.findall(r"`((?:hexopt|models|traces|solvers|tests|scripts|benchmarks|docs)/[\w./-]*\w)`", text):
        assert (ROOT / name).exists(), name


def test_nothing_of_another_machine_is_in_the_project():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            assert not foreign_paths(content), name
