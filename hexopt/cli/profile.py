"""``hexopt profile``: step times to learn latency from."""

from __future__ import annotations

import asyncio
import datetime
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from hexopt import __version__

if TYPE_CHECKING:
    from hexopt.models.cells import Cell
    from hexopt.models.profiling.steps import Step
    from hexopt.profiling.measurements import Measurement
    from hexopt.profiling.measuring import Grid

app = typer.Typer(help="Measure step times to learn latency from.", no_args_is_help=True)
Number = TypeVar("Number", int, float)
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


@app.command("aiconfigurator")
def profile_aiconfigurator(
    out: Annotated[Path, typer.Option(help="Folder for the profiles.")],
) -> None:
    """Sample silicon-measured vLLM tables for every GPU type and LLM (extra [profiles])."""
    from hexopt.cli import console
    from hexopt.models.profiling.aiconfigurator import MissingPackageError, sample_all

    console.check_folder("--out", out)
    try:
        with console.err.status("Sampling"):
            written = sample_all(out)
    except MissingPackageError as error:
        raise ValueError(str(error)) from error
    console.note(f"Wrote {len(written)} profiles to {out}")


@app.command("vllm")
def profile_vllm(
    url: Annotated[str, typer.Option(help="Base URL of a running, otherwise idle server.")],
    out: Annotated[Path, typer.Option(help="CSV for what was measured.")] = Path("profile.csv"),
    prompt_lengths: Annotated[str, typer.Option(help="Tokens, comma-separated.")] = "64,256,1024,4096",
    concurrency: Annotated[str, typer.Option(help="Calls at once, comma-separated.")] = "1,2,4,8,16",
    hits: Annotated[str, typer.Option(help="Shares of the prompt in the prefix cache, comma-separated.")] = "0,0.5",
    endpoints: Annotated[str, typer.Option(help="chat, completion or both, comma-separated.")] = "chat,completion",
    repeats: Annotated[int, typer.Option(help="Calls a point and share, of which the median counts.", min=1)] = 3,
    model: Annotated[str | None, typer.Option(help="Model's name; the first that the server serves.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="VLLM_API_KEY", help="Sent as a bearer token.")] = None,
    profiles: Annotated[Path | None, typer.Option(help="Folder for a profile that hexopt train reads.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Name of the machine in the profile.")] = None,
    llm: Annotated[str | None, typer.Option(help="Name of the LLM in the profile.")] = None,
    tp: Annotated[int, typer.Option(help="The server's tensor parallelism.", min=1)] = 1,
    pp: Annotated[int, typer.Option(help="The server's pipeline parallelism.", min=1)] = 1,
    kv_tokens: Annotated[
        int | None, typer.Option(help="Tokens of its KV cache; by default what it says.", min=1)
    ] = None,
    max_num_batched_tokens: Annotated[int, typer.Option(help="The server's option of that name.", min=1)] = 2048,
    seed: Annotated[int, typer.Option(help="Seed of the random prompts.", min=0)] = 0,
) -> None:
    """Measure a running server over HTTP: first token and between tokens, by prompt, concurrency and prefix hits."""
    from hexopt.cli import console
    from hexopt.profiling.measurements import steps_of, write_measurements

    grid = _grid(prompt_lengths, concurrency, hits, endpoints, repeats)
    console.check_writable("--out", out)
    cell = None if profiles is None else _cell(profiles, gpu, llm, tp, pp)
    if cell is not None and max(grid.concurrency) < 2:
        raise ValueError("--concurrency: expected one of at least 2 too: a prefill is timed by the wait of the others")
    rows, engine, told_kv_tokens = asyncio.run(_measure(url, model, api_key, grid, seed))
    write_measurements(rows, out)
    console.note(f"Wrote {len(rows)} measurements to {out}")
    if cell is None or profiles is None:
        return
    tokens = kv_tokens or told_kv_tokens
    if tokens is None:
        raise ValueError(f"--kv-tokens is missing: {url} does not tell the size of its KV cache")
    _write(steps_of(rows, max_num_batched_tokens), cell, engine, "hexopt profile vllm", tokens, profiles, seed)


@app.command("vllm-engine")
def profile_vllm_engine(
    profiles: Annotated[Path, typer.Option(help="Folder for a profile that hexopt train reads.")],
    gpu: Annotated[str, typer.Option(help="Name of the machine in the profile.")],
    llm: Annotated[str, typer.Option(help="Name of the LLM in the profile.")],
    model: Annotated[str | None, typer.Option(help="Folder or name of the model.")] = None,
    steps: Annotated[Path | None, typer.Option(help="Steps measured before or elsewhere, instead of a model.")] = None,
    out: Annotated[Path | None, typer.Option(help="CSV to keep the measured steps in.")] = None,
    python: Annotated[Path, typer.Option(help="Python of vLLM's environment (extra [vllm], or any).")] = Path(
        sys.executable
    ),
    load_format: Annotated[str, typer.Option(help="vLLM's; dummy needs no weights.")] = "auto",
    tp: Annotated[int, typer.Option(help="Tensor parallelism.", min=1)] = 1,
    pp: Annotated[int, typer.Option(help="Pipeline parallelism.", min=1)] = 1,
    engine_args: Annotated[str, typer.Option(help="Further arguments of vllm.LLM, as a JSON object.")] = "{}",
    seconds: Annotated[float, typer.Option(help="How long to sample.", min=1)] = 300.0,
    repeats: Annotated[int, typer.Option(help="Times that a wave of calls is run; the median counts.", min=1)] = 3,
    clock: Annotated[Literal["wall", "cpu"], typer.Option(help="cpu: for an engine on a busy processor.")] = "wall",
    seed: Annotated[int, typer.Option(help="Seed of every random draw.", min=0)] = 0,
) -> None:
    """Time the steps of a vLLM engine on this machine, in vLLM's own environment."""
    from hexopt.cli import console
    from hexopt.models.profiling.steps import read_about, read_steps

    cell = _cell(profiles, gpu, llm, tp, pp)
    if (model is None) == (steps is None):
        raise ValueError("expected one of --model and --steps")
    if out is not None:
        console.check_writable("--out", out)
    with tempfile.TemporaryDirectory() as folder:
        measured = steps or out or Path(folder) / "steps.csv"
        if model is not None:
            flags = {"model": model, "out": measured, "load-format": load_format, "tp": tp, "pp": pp}
            flags |= {"engine-args": engine_args, "seconds": seconds, "repeats": repeats, "clock": clock, "seed": seed}
            _run_engine(python, flags)
        about = read_about(measured)
        found = read_steps(measured)
    if (about.tp, about.pp) != (tp, pp):
        raise ValueError(f"{steps}: was measured at tp={about.tp}, pp={about.pp}, expected --tp {tp} --pp {pp}")
    _write(found, cell, about.engine, f"{about.model}, {about.clock} clock", about.kv_tokens, profiles, seed)


def _run_engine(python: Path, flags: dict[str, object]) -> None:
    from hexopt.models.profiling import vllm_engine

    try:
        given = json.loads(str(flags["engine-args"]))
    except ValueError as error:
        raise ValueError(f"--engine-args: is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise ValueError('--engine-args: expected a JSON object, as {"max_model_len": 8192}')
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    try:
        done = subprocess.run([str(python), vllm_engine.__file__, *words], check=False)
    except OSError as error:
        raise ValueError(f"--python {python}: cannot be run: {error.strerror}") from error
    if done.returncode:
        raise ValueError(f"vLLM could not be profiled with {python}: it ended with status {done.returncode}, see above")


def _write(steps: list[Step], cell: Cell, engine: str, system: str, kv_tokens: int, profiles: Path, seed: int) -> None:
    """Freeze steps into a profile and say how many there are."""
    from hexopt.cli import console
    from hexopt.models.profiling.frozen import Provenance, write_profile
    from hexopt.models.profiling.steps import freeze

    provenance = Provenance(
        package="hexopt",
        package_version=__version__,
        source="hexopt profile",
        licence="measured by the owner",
        system=system,
        engine=engine,
        kv_tokens=kv_tokens,
        estimated=False,
        date=datetime.date.today().isoformat(),
        running_engine=True,
    )
    profile = freeze(steps, cell, provenance, seed)
    profiles.mkdir(parents=True, exist_ok=True)
    path = write_profile(profile, profiles)
    console.note(f"Wrote {len(profile)} steps to {path}")


async def _measure(
    url: str, model: str | None, api_key: str | None, grid: Grid, seed: int
) -> tuple[list[Measurement], str, int | None]:
    """The measurements, what the engine is, and the tokens that its KV cache holds."""
    try:
        import aiohttp
    except ImportError as error:
        raise ValueError("aiohttp is not installed: pip install 'hexopt[service]'") from error
    import numpy as np
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from hexopt.cli import console
    from hexopt.profiling.measuring import Measuring
    from hexopt.profiling.server import Server

    columns = (TextColumn("Measuring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=60, sock_read=600)
    # vLLM closes connections that were idle for 5 s: none is used that is about to be.
    connections = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connections) as session:
        server = Server(session, url, model, api_key)
        await server.look()
        with Progress(*columns, console=console.err, transient=True) as bar:
            task = bar.add_task("Measuring", total=None)
            measuring = Measuring(server, grid, np.random.default_rng(seed))
            rows = await measuring.run(lambda done, total: bar.update(task, completed=done, total=total))
        return rows, await server.version(), await server.kv_tokens()


def _grid(prompt_lengths: str, concurrency: str, hits: str, endpoints: str, repeats: int) -> Grid:
    from hexopt.profiling.measuring import Grid
    from hexopt.profiling.server import ENDPOINTS

    wanted = [name.strip() for name in endpoints.split(",")]
    chosen = tuple(name for name in ENDPOINTS if name in wanted)
    if sorted(chosen) != sorted(wanted):
        raise ValueError(f"--endpoints is {endpoints!r}, expected some of {', '.join(ENDPOINTS)}, each once")
    return Grid(
        _numbers("--prompt-lengths", prompt_lengths, int, lambda n: n >= 32, "at least 32"),
        _numbers("--concurrency", concurrency, int, lambda n: n >= 1, "at least 1"),
        _numbers("--hits", hits, float, lambda share: 0 <= share < 1, "at least 0 and below 1"),
        chosen,
        repeats,
    )


def _numbers(
    flag: str, text: str, kind: Callable[[str], Number], fits: Callable[[Number], bool], expected: str
) -> tuple[Number, ...]:
    try:
        values = tuple(sorted({kind(part) for part in text.split(",")}))
    except ValueError as error:
        raise ValueError(f"{flag} is {text!r}, expected numbers with commas between them") from error
    if not all(map(fits, values)):
        raise ValueError(f"{flag} is {text!r}, expected each {expected}")
    return values


def _cell(profiles: Path, gpu: str | None, llm: str | None, tp: int, pp: int) -> Cell:
    from hexopt.cli import console
    from hexopt.models.cells import Cell

    console.check_folder("--profiles", profiles)
    for flag, name in (("--gpu", gpu), ("--llm", llm)):
        if name is None:
            raise ValueError(f"{flag} is missing: a profile names its machine and its LLM")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{flag} is {name!r}, expected lower-case letters, digits, dots and hyphens")
    return Cell(str(gpu), str(llm), tp, pp)
