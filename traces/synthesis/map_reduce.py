"""Map-reduce summaries of long documents.

The setting of Parrot (Lin et al., OSDI 2024, section 8): scientific papers of more than 20,000 tokens, cut
into chunks of 1,024 (512 to 2,048 in its sweep), 50 output tokens (25 to 100). Where more summaries come
together than a call takes, they are reduced in a tree, as LangChain's ``MapReduceDocumentsChain`` collapses
them. The spread of the documents and of the outputs is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hexopt.traces.synthesis.family import Family, check_number, check_whole, lognormal_tokens
from hexopt.traces.workflow import Prefix, Stage, Workflow

NAME = "map-reduce"


@dataclass(frozen=True, slots=True)
class MapReduceParameters:
    """Parameters of ``map-reduce``; lengths in tokens.

    Parameters
    ----------
    document_median, document_sigma, max_document
        Length of the document: log-normal, at most ``max_document``.
    chunk_tokens
        Part of the document that one call summarises.
    instruction_tokens
        Instructions before every chunk, and others before the summaries, shared by all workflows.
    output_median, output_sigma
        Length of a summary: log-normal.
    fan_in
        Summaries that one call takes at most.
    """

    document_median: float = 24_000.0
    document_sigma: float = 0.3
    max_document: int = 200_000
    chunk_tokens: int = 1024
    instruction_tokens: int = 64
    output_median: float = 50.0
    output_sigma: float = 0.25
    fan_in: int = 64

    def __post_init__(self) -> None:
        check_number(self, "document_median", 1)
        check_number(self, "document_sigma", 0, 5)
        check_whole(self, "max_document", 1)
        check_whole(self, "chunk_tokens", 1)
        check_whole(self, "instruction_tokens", 1)
        check_number(self, "output_median", 1)
        check_number(self, "output_sigma", 0, 5)
        check_whole(self, "fan_in", 2)


def draw(id: str, rng: np.random.Generator, parameters: MapReduceParameters) -> Workflow:
    """Draw one document and the calls that summarise it."""
    p = parameters
    document = lognormal_tokens(rng, p.document_median, p.document_sigma, 1, p.max_document)
    stages: list[Stage] = []

    def call(kind: str, tokens: int, parents: tuple[str, ...]) -> Stage:
        stage = Stage(
            id=str(len(stages)),
            kind=kind,
            prompt_tokens=p.instruction_tokens + tokens,
            output_tokens=lognormal_tokens(rng, p.output_median, p.output_sigma, 1, p.chunk_tokens),
            parents=parents,
            prefixes=(Prefix(f"{NAME}/{kind}", p.instruction_tokens),),
        )
        stages.append(stage)
        return stage

    level = [call("map", min(p.chunk_tokens, document - at), ()) for at in range(0, document, p.chunk_tokens)]
    while True:
        groups = [level[at : at + p.fan_in] for at in range(0, len(level), p.fan_in)]
        level = [call("reduce", sum(s.output_tokens for s in group), _ids(group)) for group in groups]
        if len(level) == 1:
            return Workflow(id, tuple(stages), family=NAME)


def _ids(stages: list[Stage]) -> tuple[str, ...]:
    return tuple(stage.id for stage in stages)


FAMILY = Family(NAME, "summaries of the chunks of a document, reduced to one", MapReduceParameters, draw)
