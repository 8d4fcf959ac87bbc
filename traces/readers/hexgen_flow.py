"""Text-to-SQL workflows as the HexGen-Flow simulator ships them (arXiv 2505.05286)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hexopt.traces.readers.fields import field, mapping, sequence, shown, text, tokens
from hexopt.traces.readers.source import Source
from hexopt.traces.workflow import Prefix, Stage, TraceError, Workflow

_KINDS = {
    "information retriever": "information_retriever",
    "extract_keywords": "extract_keywords",
    "generate_candidate_llama-agent": "generate_candidate",
    "revise": "revise",
    "unit_tester": "unit_tester",
    "generate_unit_test": "generate_unit_test",
    "evaluate": "evaluate",
}
_PARALLEL = frozenset({"generate_candidate", "evaluate"})

# Static prompt templates, in tokens (Relaxed-System-Lab/Hexgen-Flow, core/engine_optimized.py:13-20). The two
# candidate templates take turns inside the group.
_TEMPLATES = {
    "information_retriever": (213,),
    "extract_keywords": (630,),
    "generate_candidate": (9158, 5292),
    "revise": (3059,),
    "unit_tester": (213,),
    "generate_unit_test": (436,),
    "evaluate": (261,),
}


def read(source: Source) -> Iterator[Workflow]:
    """Yield the workflows of ``[{"Text2SQLRequest": [{"step", "input_length", "output_length"}]}]``.

    Calls run one after the other, except that all ``generate_candidate`` calls and all ``evaluate`` calls of
    a workflow each form one parallel group at the place of their first call, as the published simulator has
    it. The file states no arrivals: all are 0.
    """
    for where, document in source.documents():
        requests: list[Any] = []
        with source.at(where):
            requests = sequence(document, "the document")
        for index, request in enumerate(requests):
            with source.at(f"[{index}]"):
                calls = sequence(field(mapping(request, "the record"), "Text2SQLRequest"), "Text2SQLRequest")
                workflow = Workflow(id=f"text2sql-{index}", stages=_stages(calls), family="text-to-sql")
                yield workflow


def _stages(calls: list[Any]) -> tuple[Stage, ...]:
    groups: list[list[tuple[str, str, Mapping[str, Any]]]] = []
    parallel: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for index, call in enumerate(calls):
        where = f"Text2SQLRequest[{index}]"
        record = mapping(call, where)
        step = text(record, "step", f"{where}.")
        kind = _KINDS.get(step.lower())
        if kind is None:
            raise TraceError(f"{where}.step is {shown(step)}, expected one of {', '.join(_KINDS)}")
        if kind not in parallel:
            groups.append([])
            if kind in _PARALLEL:
                parallel[kind] = groups[-1]
        (parallel[kind] if kind in _PARALLEL else groups[-1]).append((kind, where, record))
    stages: list[Stage] = []
    parents: tuple[str, ...] = ()
    for group in groups:
        ids = tuple(f"{len(stages) + place}" for place in range(len(group)))
        for place, (id_, (kind, where, record)) in enumerate(zip(ids, group, strict=True)):
            prompt = tokens(record, "input_length", f"{where}.", least=1)
            templates = _TEMPLATES[kind]
            variant = place % len(templates)
            name = f"{kind}/{variant + 1}" if len(templates) > 1 else kind
            stages.append(
                Stage(
                    id=id_,
                    kind=kind,
                    prompt_tokens=prompt,
                    output_tokens=tokens(record, "output_length", f"{where}.", least=1),
                    parents=parents,
                    prefixes=(Prefix(f"text-to-sql/{name}", min(templates[variant], prompt)),),
                )
            )
        parents = ids
    return tuple(stages)
