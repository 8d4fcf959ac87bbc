"""Text-to-SQL in the manner of CHESS: the workload of HexGen-Flow (arXiv 2505.05286).

Structure and lengths are fitted to the traces that the published HexGen-Flow simulator ships, by step:

* order of the steps: ``STANDARD_WORKFLOW`` (``core/request.py``) and the traces; candidates run in parallel,
  and so do evaluations; a revision, where there is any, follows the one before;
* natural counts of revisions, evaluations, and absent steps: the un-resampled traces of the BIRD databases
  ``financial`` (94 workflows) and ``formula1`` (29);
* uniform counts of revisions: what ``trace1`` to ``trace3`` were resampled to
  (``cli/extract_revise_samples.py``);
* template tokens: ``core/engine_optimized.py:13-20``;
* lengths: prompts are a constant per database plus a gamma or log-normal part for question and candidate;
  outputs are log-normal, cut at the observed extremes, with point masses where the traces have them. A prompt
  of the second candidate is the first one's less 3,866 tokens, exactly, in all traces.

The traces have no time between calls (the SQL runs in no time), and neither have these workflows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hexopt.traces.synthesis.family import Family, check_number, lognormal_tokens
from hexopt.traces.workflow import Prefix, Stage, Workflow

NAME = "text-to-sql"

_TEMPLATE_TOKENS = {
    "information_retriever": 213,
    "extract_keywords": 630,
    "generate_candidate/1": 9158,
    "generate_candidate/2": 5292,
    "revise": 3059,
    "unit_tester": 213,
    "generate_unit_test": 436,
    "evaluate": 261,
}
_RETRIEVER_PROMPTS = (301, 304, 308, 312)
_RETRIEVER_OUTPUTS = (5, 5, 5, 4)
_TESTER_PROMPTS = (271, 275, 278)
_TESTER_OUTPUTS = (6, 4, 4)
_CANDIDATES_APART = 3866
_CANDIDATE_TO_REVISION = 6083


@dataclass(frozen=True, slots=True)
class _Database:
    """What differs between the databases; counts are (value, workflows) as observed."""

    candidate_least: int
    question_mean: float
    revisions: tuple[tuple[int, int], ...]
    revision_median: float
    runaway_share: float
    without_keywords: float
    keywords_mean: float
    without_unit_test: float
    unit_test_median: float
    evaluations: tuple[tuple[int, int], ...]


_FINANCIAL = _Database(
    candidate_least=11_735,
    question_mean=241,
    revisions=((0, 69), (1, 12), (2, 5), (3, 2), (4, 1), (5, 1), (6, 1), (8, 2), (10, 1)),
    revision_median=84,
    runaway_share=0.11,
    without_keywords=14 / 94,
    keywords_mean=28,
    without_unit_test=7 / 94,
    unit_test_median=980,
    evaluations=((2, 1), (3, 5), (4, 32), (5, 32), (6, 13), (7, 3), (8, 1)),
)
_FORMULA1 = _Database(
    candidate_least=13_703,
    question_mean=142,
    revisions=((0, 18), (1, 4), (3, 1), (4, 1), (5, 1), (6, 2), (7, 1), (9, 1)),
    revision_median=128,
    runaway_share=0.0,
    without_keywords=3 / 29,
    keywords_mean=40,
    without_unit_test=0.0,
    unit_test_median=1065,
    evaluations=((3, 3), (4, 11), (5, 6), (6, 7), (8, 1), (11, 1)),
)


@dataclass(frozen=True, slots=True)
class TextToSqlParameters:
    """Parameters of ``text-to-sql``.

    Parameters
    ----------
    financial_share
        Share of the workflows that ask the database ``financial``; the others ask ``formula1``.
    uniform_revisions
        Share of the workflows whose number of revisions is uniform on 0 to 10, as in the published
        simulator's ``trace1`` to ``trace3``; the others have the natural one. The mean is 0.9 revisions a
        workflow for 0 and 5 for 1.
    """

    financial_share: float = 94 / 123
    uniform_revisions: float = 0.0

    def __post_init__(self) -> None:
        check_number(self, "financial_share", 0, 1)
        check_number(self, "uniform_revisions", 0, 1)


class _Draft:
    """Stages so far, numbered as they come; each group follows the whole group before it."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._parents: tuple[str, ...] = ()

    def follow(self, kind: str, *calls: tuple[int, int]) -> None:
        """Add parallel calls of one kind, given as (prompt tokens, output tokens)."""
        group: list[Stage] = []
        for place, (prompt, output) in enumerate(calls, 1):
            template = f"{kind}/{place}" if kind == "generate_candidate" else kind
            shared = Prefix(f"{NAME}/{template}", min(_TEMPLATE_TOKENS[template], prompt))
            group.append(
                Stage(
                    id=str(len(self.stages) + len(group)),
                    kind=kind,
                    prompt_tokens=prompt,
                    output_tokens=output,
                    parents=self._parents,
                    prefixes=(shared,),
                )
            )
        self.stages += group
        self._parents = tuple(stage.id for stage in group)


def draw(id: str, rng: np.random.Generator, parameters: TextToSqlParameters) -> Workflow:
    """Draw one workflow."""
    database = _FINANCIAL if rng.random() < parameters.financial_share else _FORMULA1
    draft = _Draft()
    _retrieve(draft, rng, database)
    candidate = database.candidate_least + round(rng.gamma(1.3, database.question_mean / 1.3))
    first = lognormal_tokens(rng, 715, 0.36, 337, 1012)
    second = lognormal_tokens(rng, 0.66 * first, 0.17, 274, 900)
    draft.follow("generate_candidate", (candidate, first), (candidate - _CANDIDATES_APART, second))
    _revise(draft, rng, database, candidate, parameters)
    _select(draft, rng, database)
    return Workflow(id, tuple(draft.stages), family=NAME)


def _retrieve(draft: _Draft, rng: np.random.Generator, database: _Database) -> None:
    for place, (prompt, output) in enumerate(zip(_RETRIEVER_PROMPTS, _RETRIEVER_OUTPUTS, strict=True)):
        if place == 0 and rng.random() < 0.4:
            output = int(rng.integers(24, 47))
        draft.follow("information_retriever", (prompt, output))
        if place == 0 and rng.random() >= database.without_keywords:
            words = 4 + round(rng.gamma(1.5, database.keywords_mean / 1.5))
            draft.follow("extract_keywords", (630 + words, lognormal_tokens(rng, 9 + 0.93 * words, 0.25, 12, 120)))


def _revise(
    draft: _Draft,
    rng: np.random.Generator,
    database: _Database,
    candidate: int,
    parameters: TextToSqlParameters,
) -> None:
    if rng.random() < parameters.uniform_revisions:
        revisions = int(rng.integers(0, 11))
    else:
        revisions = _observed(rng, database.revisions)
    least = candidate - _CANDIDATE_TO_REVISION + round(rng.gamma(2.0, 20.0))
    for _ in range(revisions):
        # One revision in ten quotes a long error or result.
        quoted = 930 if rng.random() < 0.1 else 0
        draft.follow("revise", (least + quoted + int(rng.integers(0, 31)), _revision_output(rng, database)))


def _revision_output(rng: np.random.Generator, database: _Database) -> int:
    case = rng.random()
    if case < database.runaway_share:
        return int(rng.integers(1005, 1079))
    if case < database.runaway_share + 0.17:
        return int(rng.integers(10, 26))
    return lognormal_tokens(rng, database.revision_median, 0.35, 26, 312)


def _select(draft: _Draft, rng: np.random.Generator, database: _Database) -> None:
    testers = list(zip(_TESTER_PROMPTS, _TESTER_OUTPUTS, strict=True))
    draft.follow("unit_tester", testers[0])
    if rng.random() < database.without_unit_test:
        draft.follow("unit_tester", testers[1])
    else:
        prompt = lognormal_tokens(rng, database.unit_test_median, 0.24, 628, 3320)
        draft.follow("generate_unit_test", (prompt, lognormal_tokens(rng, 85, 0.42, 26, 245)))
        draft.follow("unit_tester", testers[1])
        least = prompt - 130 + int(rng.integers(0, 31))
        draft.follow(
            "evaluate",
            *(
                (least + int(rng.integers(0, 16)), _evaluation_output(rng))
                for _ in range(_observed(rng, database.evaluations))
            ),
        )
    draft.follow("unit_tester", testers[2])


def _evaluation_output(rng: np.random.Generator) -> int:
    return 22 if rng.random() >= 0.11 else lognormal_tokens(rng, 85, 0.45, 56, 357)


def _observed(rng: np.random.Generator, counts: tuple[tuple[int, int], ...]) -> int:
    """Draw a value as often as it was observed."""
    return int(rng.choice([value for value, times in counts for _ in range(times)]))


FAMILY = Family(NAME, "Text-to-SQL with parallel candidates, self-correction and unit tests", TextToSqlParameters, draw)
