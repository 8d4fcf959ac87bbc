"""Tells the gateway which calls of an OpenAI client form one workflow.

Needs no library of its own: any client with ``with_options(default_headers=...)`` works, as ``openai.OpenAI`` and
``openai.AsyncOpenAI`` have it; for others the headers are there to be sent by hand.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Generic, TypeVar

from hexopt.service.context import ContextError, read_context

__all__ = ["ClientError", "StageCall", "WorkflowCalls", "workflow"]

ClientT = TypeVar("ClientT")


class ClientError(ValueError):
    """A workflow or stage that the gateway would refuse; the message says why."""


def workflow(
    client: ClientT,
    *,
    id: str | None = None,
    deadline: float | None = None,
    weight: float | None = None,
    tenant: str | None = None,
) -> WorkflowCalls[ClientT]:
    """Begin a workflow: ``with workflow(client, deadline=60) as flow: ...``, or ``async with``.

    Parameters
    ----------
    client
        An OpenAI client, sync or async; ``None`` to use headers only.
    id
        The workflow's; a random one by default. Several processes that name the same one work on the same workflow.
    deadline
        Seconds from the workflow's first call by which all of it should have ended.
    weight
        Importance, > 0; the gateway's default is 1.
    tenant
        Who asks.

    Raises
    ------
    ClientError
        On a value that the gateway would refuse, or that HTTP headers cannot carry.
    """
    return WorkflowCalls(client, uuid.uuid4().hex if id is None else id, deadline, weight, tenant)


class _Bound(Generic[ClientT]):
    """Has the attributes of its client."""

    client: ClientT

    def __getattr__(self, name: str) -> Any:
        if name == "client" or name.startswith("__"):  # those that copying looks for, before there is a client
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        return getattr(self.client, name)


class WorkflowCalls(_Bound[ClientT]):
    """A workflow, and its client: calls made through it belong to the workflow. Made by :func:`workflow`.

    Attributes
    ----------
    id
        The workflow's id.
    client
        The client, bound to the workflow's headers; its attributes are the workflow's too (``flow.chat``).
    headers
        What calls of the workflow send.
    """

    def __init__(
        self, client: ClientT, id: str, deadline: float | None, weight: float | None, tenant: str | None
    ) -> None:
        self.id = id
        self.headers = _headers(workflow=id, deadline=deadline, weight=weight, tenant=tenant)
        self.client = _bound(client, self.headers)
        self._unbound = client
        self._made: Counter[str] = Counter()
        self._ended = False

    def stage(
        self,
        kind: str | None = None,
        *,
        parents: Iterable[StageCall[ClientT] | str] = (),
        id: str | None = None,
        output_tokens: int | None = None,
        prefix: str | None = None,
        final: bool = False,
    ) -> StageCall[ClientT]:
        """One call of the workflow: ``flow.stage("revise", parents=[draft]).chat.completions.create(...)``.

        Parameters
        ----------
        kind
            What the call does; the gateway learns answers' lengths per kind.
        parents
            The stages, or their ids, whose answers this call needs.
        id
            The stage's; by default its kind with a number, unique within this object.
        output_tokens
            Length of the answer, where it is known about.
        prefix
            Calls with the same hint start with the same text.
        final
            Whether nothing of the workflow comes after this call.

        Raises
        ------
        ClientError
            On a value that the gateway would refuse, a parent of another workflow, or a workflow that has ended.
        """
        if self._ended:
            raise ClientError(f"workflow {self.id}: has ended, expected no further stage")
        if isinstance(parents, str):
            raise ClientError(f"parents is {parents!r}, expected a list of stages or of their ids")
        name = kind or "call"
        if id is None:
            self._made[name] += 1
            id = f"{name.replace(',', '_')}-{self._made[name]}"
        names = []
        for parent in parents:
            if isinstance(parent, StageCall):
                if parent.workflow != self.id:
                    raise ClientError(f"stage {id}: parent {parent.id} is of workflow {parent.workflow}, not {self.id}")
                parent = parent.id
            names.append(parent)
        headers = self.headers | _headers(
            workflow=self.id,
            stage=id,
            kind=kind,
            parents=",".join(names) or None,
            output_tokens=output_tokens,
            prefix=prefix,
            final="true" if final else None,
        )
        return StageCall(_bound(self._unbound, headers), id, self.id, headers)

    def __enter__(self) -> WorkflowCalls[ClientT]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True

    async def __aenter__(self) -> WorkflowCalls[ClientT]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True


class StageCall(_Bound[ClientT]):
    """A stage, for one call. Made by :meth:`WorkflowCalls.stage`.

    Attributes
    ----------
    id, workflow
        Ids.
    client
        The client, bound to the stage's headers; its attributes are the stage's too (``stage.chat``).
    headers
        What the call sends, for clients that take ``extra_headers``.
    """

    def __init__(self, client: ClientT, id: str, workflow: str, headers: dict[str, str]) -> None:
        self.id = id
        self.workflow = workflow
        self.headers = headers
        self.client = client


def _headers(**values: Any) -> dict[str, str]:
    """HexOpt's headers of these values, as the gateway accepts them."""
    found = {}
    for name, value in values.items():
        if value is None:
            continue
        text = str(value)
        if not text.isascii():
            raise ClientError(f"{name} is {text!r}, expected ASCII: HTTP clients send no other characters in headers")
        if not text or text != text.strip():
            raise ClientError(f"{name} is {text!r}, expected text without space around it")
        found[f"x-hexopt-{name.replace('_', '-')}"] = text
    try:
        read_context([(name.encode(), text.encode()) for name, text in found.items()], {})
    except ContextError as error:
        raise ClientError(str(error)) from None
    return found


def _bound(client: ClientT, headers: dict[str, str]) -> ClientT:
    if client is None:
        return client
    try:
        with_options = client.with_options  # type: ignore[attr-defined]
    except AttributeError:
        raise ClientError(
            f"client is a {type(client).__name__}, expected one with with_options(default_headers=...), "
            "as openai.OpenAI, or None to send .headers by hand"
        ) from None
    bound: ClientT = with_options(default_headers=headers)
    return bound
