"""What a request's prompt tells before any tokenizer has seen it: how long it is, and what it shares with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CHUNK_TOKENS = 256
"""Tokens of a prefix chunk, the grain at which the gateway follows prefix caches."""
_CHUNK_BYTES = 1024
_START = 4.0
"""Bytes a token before anything was seen, as OpenAI's rule of thumb for English has it."""
_MEMORY = 0.02
"""Weight of one observation of bytes a token."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the gateway sees it.

    Parameters
    ----------
    size
        Bytes of its text; tokens if it came as token ids.
    chunks
        Keys of its successive whole chunks: equal beginnings have equal keys.
    exact
        Whether ``size`` counts tokens.
    """

    size: int
    chunks: tuple[int, ...]
    exact: bool


def prompt_of(body: Mapping[str, Any]) -> Prompt:
    """The prompt of a completion's or chat completion's body; what is malformed in it is the server's to refuse."""
    prompt = body.get("prompt")
    if prompt is None:
        return _of_text("\0".join(_texts(body)).encode("utf-8", "surrogatepass"))
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], list):
        prompt = prompt[0]
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
        whole = len(prompt) // CHUNK_TOKENS
        try:
            keys = tuple(hash(tuple(prompt[k * CHUNK_TOKENS : (k + 1) * CHUNK_TOKENS])) for k in range(whole))
        except TypeError:  # lists or objects among the ids
            keys = ()
        return Prompt(len(prompt), keys, True)
    if isinstance(prompt, list):
        prompt = prompt[0] if prompt and isinstance(prompt[0], str) else ""
    return _of_text(_text(prompt).encode("utf-8", "surrogatepass"))


def _of_text(text: bytes) -> Prompt:
    whole = len(text) // _CHUNK_BYTES
    return Prompt(len(text), tuple(hash(text[k * _CHUNK_BYTES : (k + 1) * _CHUNK_BYTES]) for k in range(whole)), False)


def _texts(body: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    # Chat templates put the tools before the messages.
    tools = body.get("tools")
    if tools:
        found.append(_text(tools))
    messages = body.get("messages")
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return found
    for message in messages:
        if not isinstance(message, Mapping):
            continue
        found.append(_text(message.get("role", "")))
        content = message.get("content")
        if isinstance(content, str):
            found.append(content)
        elif isinstance(content, list):
            found += [
                part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str)
            ]
        if message.get("tool_calls"):
            found.append(_text(message["tool_calls"]))
    return found


def _text(value: Any) -> str:
    try:
        return str(value)
    except RecursionError:  # nested deeper than Python prints, no prompt that a server takes
        return ""


@dataclass
class TokenScale:
    """Bytes a token, learned from the usage that servers report."""

    ratio: float = field(default=_START)

    def tokens(self, prompt: Prompt) -> int:
        """Expected tokens of ``prompt``, at least 1."""
        return max(prompt.size if prompt.exact else round(prompt.size / self.ratio), 1)

    def observe(self, prompt: Prompt, tokens: int) -> None:
        """Learn that the server counted ``tokens``."""
        if prompt.exact or tokens < 16 or prompt.size < 64:
            return
        ratio = min(max(prompt.size / tokens, 0.5), 16.0)
        self.ratio += _MEMORY * (ratio - self.ratio)
