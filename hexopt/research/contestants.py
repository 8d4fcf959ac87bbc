"""Who is compared: policies by name, those of the user's own files among them."""

from __future__ import annotations

import hashlib
import sys
import types
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hexopt.policies.policy import Policy
from hexopt.policies.registry import POLICIES, make_policy
from hexopt.research.definition import Definition, DefinitionError, Tuned

EVERY = "all"
KNOW_THE_TRUTH = frozenset({"clairvoyant"})
"""Policies that no scheduler could follow: they bound the others from beyond, and are named to be compared."""
_REPEATABLE = {"rolling-horizon": "rolling-horizon:freeze=true"}


@dataclass(frozen=True)
class Contestant:
    """A policy of the comparison.

    Parameters
    ----------
    label
        What tables and figures call it.
    text
        As :func:`hexopt.policies.registry.make_policy` reads it.
    tuned
        What is chosen for it in each cell, if anything.
    """

    label: str
    text: str
    tuned: Tuned | None = None


@dataclass(frozen=True)
class Source:
    """A file with policies of the user's own: its text travels, so that workers elsewhere need no file."""

    name: str
    text: str


def read_sources(paths: Iterable[Path]) -> tuple[Source, ...]:
    """Read the files.

    Raises
    ------
    DefinitionError
        Naming the one that cannot be read.
    """
    sources = []
    for path in paths:
        try:
            sources.append(Source(path.name, path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise DefinitionError(f"policy_files: {path}: cannot be read: {error}") from error
    return tuple(sources)


@cache
def register(source: Source) -> tuple[str, ...]:
    """Run the file in this process and make its policies known by their names, which are returned.

    Raises
    ------
    DefinitionError
        If it fails, has no policy, or one whose name is taken.
    """
    module = types.ModuleType(f"hexopt_policies_{hashlib.sha256(source.text.encode()).hexdigest()[:16]}")
    sys.modules[module.__name__] = module  # where dataclasses look up what annotations mean
    try:
        exec(compile(source.text, source.name, "exec", dont_inherit=True), module.__dict__)
    except Exception as error:
        del sys.modules[module.__name__]
        raise DefinitionError(f"policy_files: {source.name}: {type(error).__name__}: {error}") from error
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Policy) and value.__module__ == module.__name__
    ]
    if not found:
        raise DefinitionError(f"policy_files: {source.name}: has no subclass of Policy")
    for policy in found:
        if not policy.name or policy.name in POLICIES:
            what = f"{policy.name!r} is taken" if policy.name else "it has none"
            raise DefinitionError(f"policy_files: {source.name}: {policy.__name__} needs a name of its own, {what}")
    POLICIES.update({policy.name: policy for policy in found})
    return tuple(policy.name for policy in found)


def contestants(definition: Definition) -> list[Contestant]:
    """Everyone that the definition names; ``all`` stands for those of the registry that it does not name otherwise.

    Raises
    ------
    PolicyError
        For a policy that is unknown, or a parameter.
    DefinitionError
        If two have the same label, or the baseline is none of them.
    """
    named = {text.partition(":")[0] for text in (*definition.policies, *(t.policy for t in definition.tuned))}
    texts: list[str] = []
    for text in definition.policies:
        if text != EVERY:
            texts.append(text)
            continue
        left = [name for name in POLICIES if name not in named and name not in KNOW_THE_TRUTH]
        texts += [_REPEATABLE.get(name, name) for name in left]
    found = [Contestant(make_policy(text).label, text) for text in texts]
    for tuned in definition.tuned:
        for value in tuned.values:
            make_policy(tuned.at(value))
        found.append(Contestant(tuned.label, tuned.policy, tuned))
    labels = [c.label for c in found]
    for label in labels:
        if labels.count(label) > 1:
            raise DefinitionError(f"policies: two are called {label!r}")
    baseline_of(definition, found)
    return found


def baseline_of(definition: Definition, found: list[Contestant]) -> str:
    """Label of the baseline.

    Raises
    ------
    DefinitionError
        If it is none of ``found``.
    """
    for contestant in found:
        if definition.baseline in (contestant.label, contestant.text):
            return contestant.label
    raise DefinitionError(
        f"baseline: {definition.baseline!r} is not compared; there are {', '.join(c.label for c in found)}"
    )


def gantt_labels(definition: Definition, found: list[Contestant]) -> list[str]:
    """Label of the policy of each run that is drawn.

    Raises
    ------
    DefinitionError
        If a policy is none of ``found``, or there is no such load or rate.
    """
    labels = []
    for number, wanted in enumerate(definition.gantt):
        label = next((c.label for c in found if wanted.policy in (c.label, c.text)), None)
        if label is None:
            raise DefinitionError(
                f"gantt[{number}].policy: {wanted.policy!r} is not compared; there are "
                f"{', '.join(c.label for c in found)}"
            )
        for name, value, there in (
            ("load", wanted.load, definition.loads),
            ("rate", wanted.rate, definition.rates),
        ):
            if value is not None and value not in there:
                raise DefinitionError(f"gantt[{number}].{name}: {value:g} is not among the experiment's {name}s")
        labels.append(label)
    return labels
