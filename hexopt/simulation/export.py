"""What a run leaves behind, in open formats: JSON, Parquet and Chrome's trace events."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from hexopt.atomic import atomic_write
from hexopt.simulation.lanes import pack_lanes

if TYPE_CHECKING:
    from hexopt.simulation.simulator import Run

FORMAT = "hexopt-run"
VERSION = 1

_STAGE = ("workflow", "kind", "occurrence", "instance", "prompt", "output", "cached", "preemptions")
_STAGE_TIMES = ("ready", "start", "first_token", "finish")
_WORKFLOW = ("first_stage", "stages", "tenant", "weight")
_WORKFLOW_TIMES = ("arrival", "deadline", "finish")
_TOTALS = ("blocks", "steps", "computed_tokens", "cached_tokens", "preemptions", "finished")
_TOTAL_TIMES = ("busy_seconds", "block_seconds")


class ExportError(ValueError):
    """A run that cannot be written in the format asked for."""


def write_json(run: Run, path: str | Path) -> None:
    """Write ``run`` as one JSON object; packed where the name ends in ``.gz``.

    ``workflows`` and ``stages`` are columns (one array a field, a row a place), so that
    ``pandas.DataFrame(document["stages"])`` reads them. Times (``*_s``) are absolute simulated seconds, null where it
    did not happen; ``kind`` and ``instance`` of a stage index ``kinds`` and ``instances``, ``workflow`` the rows of
    ``workflows``; instance -1 is none.

    Raises
    ------
    OSError
        If ``path`` cannot be written.
    """
    document = {
        **_about(run),
        "workflows": _columns(run.workflow, _WORKFLOW, _WORKFLOW_TIMES),
        "stages": _columns(run.stage, _STAGE, _STAGE_TIMES),
    }
    with _text(path) as stream:
        stream.write(_dumps(document) + "\n")


def write_parquet(run: Run, path: str | Path) -> None:
    """Write the stages of ``run`` as one Parquet table, each with its workflow's columns beside it.

    Workflow columns start with ``workflow_``; times (``*_s``) are absolute simulated seconds, null where it did not
    happen; ``kind``, ``instance`` and ``gpu`` are names, null where the stage was never placed. The rest of the run
    (policy, instances and their totals) is JSON in the file's key-value metadata, under ``hexopt``.

    Raises
    ------
    ExportError
        If pyarrow is not installed.
    OSError
        If ``path`` cannot be written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ExportError(f"{path}: Parquet needs pyarrow: pip install 'hexopt[parquet]'") from error

    def names(index: NDArray[np.int32], values: list[str]) -> Any:
        codes = pa.array(index, mask=index < 0)
        return pa.DictionaryArray.from_arrays(codes, pa.array(values, pa.string()))

    stage, workflow = run.stage, run.workflow[run.stage["workflow"]]
    instances = run.cluster.instances
    columns: dict[str, Any] = {
        "workflow": stage["workflow"],
        "kind": names(stage["kind"], list(run.kinds)),
        "instance": names(stage["instance"], [i.name for i in instances]),
        "gpu": names(stage["instance"], [i.cell.cell.gpu for i in instances]),
        **{key: stage[key] for key in _STAGE if key not in ("workflow", "kind", "instance")},
        **{f"{key}_s": _nullable(pa, stage[key]) for key in _STAGE_TIMES},
        **{f"workflow_{key}": workflow[key] for key in ("stages", "tenant", "weight")},
        **{f"workflow_{key}_s": _nullable(pa, workflow[key]) for key in _WORKFLOW_TIMES},
    }
    arrays = {
        key: pa.array(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
        for key, value in columns.items()
    }
    table = pa.table(arrays).replace_schema_metadata({"hexopt": _dumps(_about(run))})
    with atomic_write(path, "wb") as stream:
        pq.write_table(table, stream, compression="zstd")


def write_chrome_trace(run: Run, path: str | Path) -> None:
    """Write ``run`` in the Trace Event Format, for https://ui.perfetto.dev or ``chrome://tracing``.

    A process an instance; its stages in lanes (threads) so that no two collide, each a slice named by its kind with
    ``prefill`` and ``decode`` inside; a counter of the stages that run and wait there. Whole microseconds. Stages that
    had not ended when the run stopped reach to its end. Packed where the name ends in ``.gz``, which Perfetto reads
    too.

    Raises
    ------
    OSError
        If ``path`` cannot be written.
    """
    events = chain.from_iterable(_instance_events(run, i) for i in range(len(run.cluster.instances)))
    about = {"policy": run.policy, "cluster": run.cluster.name}
    with _text(path) as stream:
        stream.write(f'{{"displayTimeUnit":"ms","otherData":{_dumps(about)},"traceEvents":[')
        for number, event in enumerate(events):
            stream.write((",\n" if number else "\n") + _dumps(event))
        stream.write("\n]}\n")


def _instance_events(run: Run, i: int) -> Iterator[dict[str, Any]]:
    """Trace events of instance ``i``: its names, its stages, its counter."""
    instance = run.cluster.instances[i]
    process: dict[str, Any] = {"ph": "M", "pid": i}
    yield {**process, "name": "process_name", "args": {"name": f"{instance.name} ({instance.cell.cell.gpu})"}}
    yield {**process, "name": "process_sort_index", "args": {"sort_index": i}}

    here = run.stage[run.stage["instance"] == i]
    started = here[~np.isnan(here["start"])]
    begin = _microseconds(started["start"])
    end = _microseconds(_until_end(started["finish"], run.end))
    lane = pack_lanes(begin, end)
    for number in range(int(lane.max(initial=-1)) + 1):
        yield {**process, "name": "thread_name", "tid": number, "args": {"name": f"lane {number}"}}
    first = _microseconds(_until_end(started["first_token"], run.end))
    for row, t0, t1, t2, number in zip(
        started, begin.tolist(), first.tolist(), end.tolist(), lane.tolist(), strict=True
    ):
        kind = run.kinds[row["kind"]]
        args = {
            "workflow": int(row["workflow"]),
            "kind": kind,
            "prompt_tokens": int(row["prompt"]),
            "cached_tokens": int(row["cached"]),
            "output_tokens": int(row["output"]),
            "waited_s": float(row["start"] - row["ready"]),
            "preemptions": int(row["preemptions"]),
            "finished": not np.isnan(row["finish"]),
        }
        place = {"ph": "X", "pid": i, "tid": number}
        yield {**place, "name": kind, "cat": "stage", "ts": t0, "dur": t2 - t0, "args": args}
        yield {**place, "name": "prefill", "cat": "phase", "ts": t0, "dur": t1 - t0}
        if t2 > t1:
            yield {**place, "name": "decode", "cat": "phase", "ts": t1, "dur": t2 - t1}
    yield from _counter_events(here, i)


def _counter_events(here: NDArray[np.void], i: int) -> Iterator[dict[str, Any]]:
    """How many of the stages ``here`` run and wait, at every change."""
    moments, change = [], []
    for field, running, waiting in (("ready", 0, 1), ("start", 1, -1), ("finish", -1, 0)):
        times = here[field][~np.isnan(here[field])]
        moments.append(_microseconds(times))
        change.append(np.tile((running, waiting), (times.size, 1)))
    at, order = np.unique(np.concatenate(moments), return_inverse=True)
    steps = np.zeros((at.size, 2), dtype=np.int64)
    np.add.at(steps, order, np.concatenate(change))
    for moment, (running, waiting) in zip(at.tolist(), steps.cumsum(axis=0).tolist(), strict=True):
        yield {
            "ph": "C",
            "pid": i,
            "name": "stages",
            "ts": moment,
            "args": {"running": running, "waiting": waiting},
        }


def _until_end(times: NDArray[np.float64], end: float) -> NDArray[np.float64]:
    return np.where(np.isnan(times), end, times)


def _microseconds(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    # Whole numbers, so that rounding keeps slices nested and lanes apart.
    return np.rint(seconds * 1e6).astype(np.int64)


def _about(run: Run) -> dict[str, Any]:
    """All of a run but its stages and workflows."""
    totals = _columns(run.instance, _TOTALS, _TOTAL_TIMES, suffix="")
    return {
        "format": FORMAT,
        "version": VERSION,
        "policy": run.policy,
        "cluster": run.cluster.name,
        "end_s": run.end,
        "decisions": run.decisions,
        "engine_cpu_s": run.engine_cpu_seconds,
        "scheduler_cpu_s": None if math.isnan(run.scheduler_cpu_seconds) else run.scheduler_cpu_seconds,
        "kinds": list(run.kinds),
        "instances": {
            "name": [i.name for i in run.cluster.instances],
            "gpu": [i.cell.cell.gpu for i in run.cluster.instances],
            **totals,
        },
    }


def _columns(
    table: NDArray[np.void], fields: tuple[str, ...], times: tuple[str, ...], suffix: str = "_s"
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {key: table[key].tolist() for key in fields}
    for key in times:
        columns[f"{key}{suffix}"] = [value if np.isfinite(value) else None for value in table[key].tolist()]
    return columns


def _nullable(pa: Any, values: NDArray[np.float64]) -> Any:
    return pa.array(np.ascontiguousarray(values), mask=~np.isfinite(values))


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


@contextmanager
def _text(path: str | Path) -> Iterator[TextIO]:
    with ExitStack() as stack:
        raw: Any = stack.enter_context(atomic_write(path, "wb"))
        if Path(path).suffix == ".gz":
            # Neither name nor time inside, so that the same run gives the same bytes.
            raw = stack.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))
        yield stack.enter_context(TextIOWrapper(raw, encoding="utf-8", newline="\n"))
