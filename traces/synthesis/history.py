"""The prompt of an agent that grows from call to call."""

from __future__ import annotations

from hexopt.traces.workflow import Prefix, Stage


class History:
    """What one agent's next prompt begins with: a beginning that all workflows share, then its own history.

    The history is one local segment that grows, so that every prompt shares all of the one before it, and the
    output that this one drew, however many calls there are.

    Parameters
    ----------
    beginning
        Segments shared by all workflows: system prompt, tool descriptions.
    name
        Name of the history within its workflow; one per agent.
    """

    def __init__(self, beginning: tuple[Prefix, ...], name: str = "history") -> None:
        self._beginning = beginning
        self._name = name
        self._rewritten = 0
        self.tokens = 0
        """Tokens of the agent's own history."""

    @property
    def segment(self) -> str:
        """Name of the local segment that holds the history."""
        return f"{self._name}-{self._rewritten}" if self._rewritten else self._name

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, if the agent called now."""
        return sum(prefix.tokens for prefix in self._beginning) + self.tokens

    def rewrite(self, tokens: int) -> None:
        """Replace the history by another of ``tokens`` tokens, which shares nothing with it."""
        self._rewritten += 1
        self.tokens = tokens

    def call(
        self, id: str, kind: str, output_tokens: int, parents: tuple[str, ...] = (), tool_delay: float = 0.0
    ) -> Stage:
        """Return the agent's next call; its output becomes part of the history."""
        own = (Prefix(self.segment, self.tokens, local=True),) if self.tokens else ()
        stage = Stage(
            id=id,
            kind=kind,
            prompt_tokens=self.prompt_tokens,
            output_tokens=output_tokens,
            parents=parents,
            prefixes=(*self._beginning, *own),
            output_segment=self.segment,
            tool_delay=tool_delay,
        )
        self.tokens += output_tokens
        return stage
