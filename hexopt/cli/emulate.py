"""``hexopt emulate``: vLLM-compatible servers without a GPU, timed by the latency model."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hexopt.atomic import atomic_write

if TYPE_CHECKING:
    from hexopt.cluster import Cluster

Queue = Literal["priority", "fcfs"]


def emulate(
    cluster: Annotated[
        str | None, typer.Option(help="Cluster TOML, or a bundled one: every instance becomes a server.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="GPU type of one server: a100, h100, l40s ...")] = None,
    llm: Annotated[str | None, typer.Option(help="Its LLM: llama-3.1-8b ...")] = None,
    tp: Annotated[int | None, typer.Option(help="Its tensor parallelism.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="vLLM's option.")] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(help="vLLM's option.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="vLLM's option.")] = None,
    block_size: Annotated[int | None, typer.Option(help="vLLM's option.")] = None,
    kv_tokens: Annotated[int | None, typer.Option(help="Tokens of KV cache; by default what the memory holds.")] = None,
    prefix_caching: Annotated[bool, typer.Option(help="Automatic prefix caching.")] = True,
    scheduling_policy: Annotated[Queue, typer.Option(help="Order of the queues, as vLLM's option.")] = "priority",
    served_model_name: Annotated[str | None, typer.Option(help="Name of the model; by default the LLM's.")] = None,
    speed_up: Annotated[float, typer.Option(help="Emulated seconds in a second.")] = 1.0,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port; a cluster's further servers have the next ones. 0: free ones.")
    ] = 8101,
    cluster_out: Annotated[
        Path | None, typer.Option(help="Write the cluster file with which hexopt serve finds these servers.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the answers' lengths where a request sets none.", min=0)] = 0,
) -> None:
    """Serve vLLM's API without a GPU; answers are words, and take as long as the latency model says."""
    if not (speed_up > 0 and math.isfinite(speed_up)):
        raise ValueError(f"--speed-up is {speed_up}, expected more than 0")
    if find_spec("uvicorn") is None:
        raise ValueError("hexopt emulate needs uvicorn: pip install 'hexopt[service]'")
    row: dict[str, Any] = {"gpu": gpu, "llm": llm, "tp": tp, "kv_tokens": kv_tokens, "block_size": block_size}
    row |= {"max_num_seqs": max_num_seqs, "max_num_batched_tokens": max_num_batched_tokens}
    row |= {"max_model_len": max_model_len}
    fleet = _fleet(cluster, {name: value for name, value in row.items() if value is not None}, prefix_caching)
    from hexopt.cli import console
    from hexopt.cluster import cluster_toml
    from hexopt.emulation.fleet import Fleet, Settings

    if cluster_out is not None:
        console.check_writable("--cluster-out", cluster_out)

    with console.err.status("Starting (the first run compiles the simulator)"):
        settings = Settings(speed_up, scheduling_policy == "priority", served_model_name, seed)
        servers = Fleet(fleet, settings, host, port)
    for name, url in zip(servers.names, servers.urls, strict=True):
        print(f"{url}  {name}", flush=True)
    if cluster_out is not None:
        with atomic_write(cluster_out) as stream:
            stream.write(cluster_toml(fleet, servers.urls, speed_up))
    servers.run()


def _fleet(cluster: str | None, row: dict[str, Any], prefix_caching: bool) -> Cluster:
    """The cluster of that name or file, or one instance as the flags say."""
    from hexopt.cluster import load_cluster, parse_cluster, refuse_roles

    if cluster is not None:
        if row or not prefix_caching:
            name = next(iter(row), "no_prefix_caching").replace("_", "-")
            raise ValueError(f"--{name}: with --cluster, its file says what each instance is")
        fleet = load_cluster(cluster)
        refuse_roles(fleet, "hexopt emulate")
        return fleet
    for name in ("gpu", "llm"):
        if name not in row:
            raise ValueError(f"--{name} is missing: give --gpu and --llm, or --cluster")
    return parse_cluster({"instance": [row | {"prefix_caching": prefix_caching}]}, "hexopt emulate")
