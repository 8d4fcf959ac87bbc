"""What the API takes, checked at the edge."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

_Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!-~]+$")]
_Url = Annotated[str, Field(max_length=2048, pattern=r"^https?://[^/?#\s]+[^?#\s]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SolveRequest(_Strict):
    """An epoch problem and how to solve it."""

    problem: dict[str, Any] = Field(
        description="Arrays by name as `hexopt solve` reads them, null for infinite.",
        examples=[
            {
                "service": [[2.0, 4.0], [3.0, 5.0]],
                "tail": [1.0, 0.0],
                "workflow": [0, 1],
                "due": [10.0, 4.0],
                "weight": [1.0, 1.0],
                "seats": [1, 1],
                "kv_capacity": [1000, 1000],
                "kv": [100, 100],
            }
        ],
    )
    solver: str = Field(default="portfolio", max_length=64)
    time_limit: float = Field(default=0.05, gt=0.0, le=60.0, description="Seconds.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class PredictRequest(_Strict):
    """A call whose times are asked for."""

    prompt_tokens: int = Field(ge=1, le=10_000_000)
    output_tokens: int = Field(ge=1, le=10_000_000)
    cached_tokens: int = Field(default=0, ge=0, le=10_000_000)
    company: int = Field(default=1, ge=1, le=65536, description="Calls running beside it, itself included.")


class WorkflowRequest(_Strict):
    """A workflow announced before its first call."""

    id: _Name | None = None
    tenant: Annotated[str, Field(max_length=256, pattern=r"^[!-~]*$")] = ""
    deadline: float | None = Field(default=None, gt=0.0, le=1e9, description="Seconds from now.")
    weight: float = Field(default=1.0, gt=0.0, le=1e6)


class InstanceRequest(_Strict):
    """A server to schedule on; the fields of a `[[instance]]` of cluster.toml."""

    url: _Url
    gpu: Annotated[str, Field(max_length=64)]
    llm: Annotated[str, Field(max_length=128)] | None = None
    name: _Name
    tp: int | None = Field(default=None, ge=1, le=64)
    pp: int | None = Field(default=None, ge=1, le=64)
    max_num_seqs: int | None = Field(default=None, ge=1, le=65536)
    max_num_batched_tokens: int | None = Field(default=None, ge=16, le=1 << 20)
    block_size: int | None = Field(default=None, ge=1, le=256)
    max_model_len: int | None = Field(default=None, ge=1, le=10_000_000)
    kv_tokens: int | None = Field(default=None, ge=1, le=1_000_000_000)
    price: float | None = Field(default=None, ge=0.0, le=1e9)
    speed: float = Field(default=1.0, ge=0.01, le=1000.0)


class PolicyRequest(_Strict):
    """Policies by name, with parameters as on the command line."""

    policy: Annotated[str, Field(max_length=512)] | None = None
    shadow: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="Decides beside the active policy and is only compared; an empty string ends that."
    )


class ObjectiveRequest(_Strict):
    """A preset, and weights of it to set."""

    preset: Annotated[str, Field(max_length=64)] = "deadline"
    weights: dict[str, float] = Field(default_factory=dict, max_length=32)


class ProposalRequest(_Strict):
    """A proposal to decide on."""

    id: _Name


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
