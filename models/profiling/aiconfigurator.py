"""Sample iteration times from NVIDIA's aiconfigurator, which carries kernel tables measured on real GPUs.

Needs the extra ``hexopt[profiles]`` (``aiconfigurator-core==0.12.0``, Apache-2.0, Linux x86-64); nothing else does,
since the samples are frozen in ``models/profiles``. What the package answers is the sum of the kernels of one iteration
of vLLM, without the engine's own overhead: see :mod:`hexopt.models.profiling.calibration`.

Assumptions and guards
----------------------
- **Pipeline**: the pipe is kept full and a step's batch is split evenly over the ``pp`` micro-batches in it. While one
  micro-batch crosses all stages, each of the others advances once too, so the step takes the sum over stages (which is
  what the package answers for pp > 1) of the largest micro-batch's time
  (:func:`~hexopt.models.profiling.compositions.micro_batch`). A single sequence pays the whole sum.
- **KV capacity**: the package does not check memory when it predicts, so a cell is sampled only where KV tokens are
  left. Its tokens are understated by a factor pp (a stage stores only its own layers), so they are recomputed from its
  bytes.
- **Versions**: it must be told a literal version; the A100 tables are of vLLM 0.14.0, all others of 0.24.0.
- **All-reduce over PCIe**: the L40S tables at TP4 hold one machine without peer-to-peer, where 86% of a prefill is
  all-reduce by a kernel that vLLM would not use there; such cells are refused. RTX PRO 6000 is accepted up to TP4.
- **FP8**: the package compiles FP8 models for GPUs without FP8; those cells are refused.
- **Dips**: the tables are not monotone (at single points a larger batch is up to 48% faster). Profiles keep the dips;
  the positive linear model fitted to them cannot have any.
- **A6000**: not measured; estimated from the L40S (:mod:`hexopt.models.profiling.speed_of_light`).
"""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexopt.models.catalogue import GPUS, LLMS
from hexopt.models.cells import Cell
from hexopt.models.profiling.calibration import MEASURED, MeasuredStep, write_measured
from hexopt.models.profiling.compositions import ROWS, Compositions, draw, draw_beyond, micro_batch
from hexopt.models.profiling.frozen import REFUSED, FrozenProfile, Provenance, replace_text, write_profile
from hexopt.models.profiling.speed_of_light import scale_ratio

PACKAGE = "aiconfigurator-core"
SUPPORTED_VERSION = "0.12.0"
SOURCE = "https://pypi.org/project/aiconfigurator-core/0.12.0/"
LICENCE = "Apache-2.0"
_MEMORY_SHARE = 0.92
_MAX_NUM_TOKENS = 8192
_MAX_NUM_SEQS = 256


class _System(NamedTuple):
    name: str
    vllm: str
    max_tp: int


SYSTEMS = {
    "a100": _System("a100_sxm", "0.14.0", 8),
    "h100": _System("h100_sxm", "0.24.0", 8),
    "h200": _System("h200_sxm", "0.24.0", 8),
    "b200": _System("b200_sxm", "0.24.0", 8),
    "l40s": _System("l40s", "0.24.0", 2),
    "rtx-pro-6000": _System("rtx_pro_6000_server", "0.24.0", 4),
}
"""The package's system of each GPU type, its literal vLLM version, and the largest tensor parallelism to believe."""
ESTIMATED = {"a6000": "l40s"}
"""GPU types that are estimated, and from which."""
_A6000_BYTES = 49140 * 2**20

PARALLELISMS = {
    "llama-3.1-8b": ((1, 1), (2, 1)),
    "llama-3.1-70b": ((1, 1), (2, 1), (4, 1), (8, 1)),
    "llama-3.1-70b-fp8": ((1, 1), (2, 1), (4, 1)),
    "qwen3-32b": ((1, 1), (2, 1), (4, 1)),
}
"""(tp, pp) that are tried, by LLM; the small cards try (2, 2) as well."""
_SMALL_CARDS = frozenset({"l40s", "a6000"})


class RefusedCell(ValueError):
    """A cell that is not profiled; ``fits`` tells whether memory would allow it."""

    def __init__(self, reason: str, fits: bool) -> None:
        super().__init__(reason)
        self.fits = fits


class MissingPackageError(RuntimeError):
    """aiconfigurator-core is not installed, or is not the version these profiles are made with."""


def candidates() -> list[Cell]:
    """Every cell that is tried, in order: GPU types, LLMs, parallelisms."""
    return [
        Cell(gpu, llm, tp, pp)
        for gpu in GPUS
        for llm in LLMS
        for tp, pp in (*PARALLELISMS[llm], *(((2, 2),) if gpu in _SMALL_CARDS and llm != "llama-3.1-8b" else ()))
    ]


def require_package() -> None:
    """Raise :class:`MissingPackageError` unless the supported version is installed."""
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingPackageError(f"{PACKAGE} is not installed: pip install 'hexopt[profiles]'") from error
    if version != SUPPORTED_VERSION:
        raise MissingPackageError(
            f"{PACKAGE} is {version}, expected {SUPPORTED_VERSION}: pip install 'hexopt[profiles]'"
        )


def check_cell(cell: Cell) -> None:
    """Refuse cells whose tables should not be believed, whatever memory says.

    Raises
    ------
    RefusedCell
        With the reason.
    """
    system = SYSTEMS[ESTIMATED.get(cell.gpu, cell.gpu)]
    if LLMS[cell.llm].fp8 and not GPUS[cell.gpu].fp8:
        raise RefusedCell(f"{cell.gpu} has no FP8 matrix units", fits=True)
    if cell.tp > system.max_tp:
        raise RefusedCell(
            f"all-reduce over PCIe at tp={cell.tp} was measured on an unrepresentative machine", fits=True
        )


def corrected_kv_tokens(answer: dict[str, Any], cell: Cell) -> int:
    """Tokens of KV cache of a whole instance, from the package's answer about one GPU.

    One GPU stores, of each token, ``kv_bytes_per_token / (tp * pp)``; the package forgets pp.
    """
    per_gpu = LLMS[cell.llm].kv_bytes_per_token / (cell.tp * cell.pp)
    return int(answer["total_kv_size_bytes"] / per_gpu)


def kv_tokens(cell: Cell) -> int:
    """Tokens of KV cache that ``cell`` holds, by the package's memory model at vLLM's ``gpu_memory_utilization`` 0.92.

    Raises
    ------
    RefusedCell
        Where weights and activations leave no memory for it.
    """
    from aiconfigurator_core.sdk.memory import estimate_kv_cache

    system = SYSTEMS[ESTIMATED.get(cell.gpu, cell.gpu)]
    try:
        answer = estimate_kv_cache(
            LLMS[cell.llm].huggingface_id,
            system.name,
            "vllm",
            system.vllm,
            max_num_tokens=_MAX_NUM_TOKENS,
            max_batch_size=_MAX_NUM_SEQS,
            memory_fraction_kind="of_total",
            memory_fraction_value=_MEMORY_SHARE,
            tp_size=cell.tp,
            pp_size=cell.pp,
            gpu_memory_capacity_bytes_override=_A6000_BYTES if cell.gpu == "a6000" else None,
        )
    except ValueError as error:
        if "no KV budget" not in str(error):
            raise
        raise RefusedCell(_too_big(cell), fits=False) from error
    tokens = corrected_kv_tokens(answer, cell)
    if tokens <= 0:
        raise RefusedCell(_too_big(cell), fits=False)
    return tokens


def _too_big(cell: Cell) -> str:
    llm, gpu = LLMS[cell.llm], GPUS[cell.gpu]
    return f"{llm.weights_gib:g} GiB of weights over {cell.gpus} x {gpu.memory_gib:g} GiB leave no KV cache"


def iteration_seconds(cell: Cell, compositions: Compositions) -> NDArray[np.float64]:
    """Kernel time, shape (n,), of iterations on a *measured* GPU type, pipeline included."""
    from aiconfigurator_core import RustForwardPassPerfModel

    system = SYSTEMS[cell.gpu]
    model = RustForwardPassPerfModel.from_native(
        json.dumps(
            {
                "schema_version": 1,
                "model_name": LLMS[cell.llm].huggingface_id,
                "system_name": system.name,
                "backend": "vllm",
                "backend_version": system.vllm,
                "tp_size": cell.tp,
                "pp_size": cell.pp,
            }
        )
    )
    keys = (
        "num_prefill_requests",
        "sum_prefill_tokens",
        "sum_prefill_kv_tokens",
        "num_decode_requests",
        "sum_decode_kv_tokens",
    )
    stages = micro_batch(compositions, cell.pp)
    rows = zip(*(column.tolist() for column in stages.columns()), strict=True)
    milliseconds = [
        model.estimate_forward_pass_time_ms(
            json.dumps([{"version": 1, "scheduled_requests": dict(zip(keys, row, strict=True))}])
        )
        for row in rows
    ]
    return np.array(milliseconds, dtype=np.float64) / 1000.0


def sample(cell: Cell, rng: np.random.Generator, date: str) -> FrozenProfile:
    """Sample one cell, measured or estimated.

    Raises
    ------
    RefusedCell
        See :func:`check_cell` and :func:`kv_tokens`.
    """
    check_cell(cell)
    tokens = kv_tokens(cell)
    parts = [draw(rng, ROWS["train"] + ROWS["test"], tokens), draw_beyond(rng, ROWS["extrapolation"])]
    columns = zip(*(part.columns() for part in parts), strict=True)
    compositions = Compositions(*(np.concatenate(column) for column in columns))
    measured = ESTIMATED.get(cell.gpu, cell.gpu)
    seconds = iteration_seconds(Cell(measured, cell.llm, cell.tp, cell.pp), compositions)
    notes = ["Sum of kernel times: without the engine's own overhead."]
    if measured != cell.gpu:
        seconds = seconds * scale_ratio(cell.gpu, measured, LLMS[cell.llm], micro_batch(compositions, cell.pp))
        notes.append(f"Estimated: {measured} silicon times the ratio of the two GPUs' rooflines, at most TP2.")
    if cell.pp > 1:
        notes.append("The pipe is kept full by pp even micro-batches; KV tokens corrected for pp.")
    system = SYSTEMS[measured]
    provenance = Provenance(
        package=PACKAGE,
        package_version=SUPPORTED_VERSION,
        source=SOURCE,
        licence=LICENCE,
        system=system.name,
        engine=f"vLLM {system.vllm}",
        kv_tokens=tokens,
        estimated=measured != cell.gpu,
        date=date,
        notes=tuple(notes),
    )
    split = np.repeat(list(ROWS), list(ROWS.values()))
    return FrozenProfile(cell, provenance, *compositions.columns(), seconds, split)


def measured_decode() -> list[MeasuredStep]:
    """Decode steps of real engines, from the end-to-end measurements that come with the package.

    Those are InferenceX runs (SemiAnalysis, 2025-10-29): the rows of vLLM serving Llama-3.1-70B in FP8, 1024 tokens in
    and 8192 out. Time per output token is taken as the time of one decode step at the mean context.
    """
    import aiconfigurator_core

    gpus = {system.name: gpu for gpu, system in SYSTEMS.items()}
    table = Path(aiconfigurator_core.__file__).parent / "systems" / "silicon_sample.csv"
    steps = []
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            wanted = (row["backend"], row["model_path"], row["precision"], row["isl"], row["osl"], row["mode"])
            if (
                wanted != ("vllm", "meta-llama/Llama-3.1-70B", "fp8", "1024", "8192", "agg")
                or row["system"] not in gpus
            ):
                continue
            tp, sequences = int(float(row["tp_size"])), int(float(row["batch_size"]))
            cell = Cell(gpus[row["system"]], "llama-3.1-70b-fp8", tp)
            zero, n_decode = np.zeros(1, np.int64), np.array([sequences])
            step = Compositions(zero, zero, zero, n_decode, n_decode * (1024 + 8192 // 2))
            predicted = float(iteration_seconds(cell, step)[0])
            measured = float(row["silicon_tpot_ms"]) / 1000.0
            steps.append(MeasuredStep(cell.gpu, tp, sequences, int(step.decode_context[0]), predicted, measured))
    return sorted(steps, key=lambda step: (step.gpu, step.tp, step.n_decode))


def sample_all(out_dir: Path, progress: Callable[[str], None] | None = None, seed: int = 20261) -> list[Path]:
    """Sample every candidate into ``out_dir``, with what was refused (``refused.json``) and the measured decode steps.

    Parameters
    ----------
    out_dir
        Made if it is not there.
    progress
        Called with one line for each cell.
    seed
        Of the drawn iterations; every cell draws from its own child of it.

    Returns
    -------
    list of Path
        The CSVs that were written.

    Raises
    ------
    MissingPackageError
        Before anything is written.
    """
    require_package()
    out_dir.mkdir(parents=True, exist_ok=True)
    today = datetime.date.today().isoformat()
    written, refused = [], []
    cells = candidates()
    for cell, child in zip(cells, np.random.SeedSequence(seed).spawn(len(cells)), strict=True):
        try:
            profile = sample(cell, np.random.default_rng(child), today)
        except RefusedCell as error:
            row = {
                "gpu": cell.gpu,
                "llm": cell.llm,
                "tp": cell.tp,
                "pp": cell.pp,
                "fits": error.fits,
                "reason": str(error),
            }
            refused.append(row)
            line = f"{cell}: refused: {error}"
        else:
            written.append(write_profile(profile, out_dir))
            line = f"{cell}: {len(profile)} iterations, {profile.provenance.kv_tokens} KV tokens"
        if progress is not None:
            progress(line)
    write_measured(measured_decode(), out_dir / MEASURED)
    provenance = {"package": PACKAGE, "package_version": SUPPORTED_VERSION, "source": SOURCE, "licence": LICENCE}
    provenance |= {
        "file": "systems/silicon_sample.csv",
        "selection": "vLLM, Llama-3.1-70B in FP8, 1024 in, 8192 out; InferenceX runs of 2025-10-29",
        "date": today,
    }
    replace_text((out_dir / MEASURED).with_suffix(".json"), json.dumps(provenance, indent=2) + "\n")
    replace_text(out_dir / REFUSED, json.dumps(refused, indent=1) + "\n")
    return written
