"""What a client asks of the emulator, checked."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hexopt.emulation import tokens

OUTPUT_FIELD = "emulated_output_tokens"
"""Field of a request's body that sets how many tokens come out, up to its limit."""
OUTPUT_HEADER = b"x-emulated-output-tokens"
"""Header that does the same; the field goes first."""

_COMPLETION_LIMIT = 16
"""OpenAI's limit of a completion that sets none."""
_LENGTHS_MEAN, _LENGTHS_SPREAD = math.log(150.0), 0.8
"""Log-normal lengths of answers to requests that do not say: median 150 tokens."""


class RequestError(ValueError):
    """A request that is refused.

    Parameters
    ----------
    message
        What was expected.
    param
        The field at fault.
    status
        HTTP status.
    """

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt of a request.

    Parameters
    ----------
    content
        The prompt, see :mod:`hexopt.emulation.tokens`.
    output
        Tokens to put out.
    text
        The answer, without what is behind a stop string.
    reason
        Why it ends: ``length`` or ``stop``.
    """

    content: bytes
    output: int
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request for completions, of a chat or of prompts."""

    chat: bool
    prompts: tuple[Asked, ...]
    stream: bool
    include_usage: bool
    priority: int


def parse(body: Any, chat: bool, header: bytes | None, model: str, longest: int, seed: int) -> Request:
    """The request in a JSON ``body``.

    Parameters
    ----------
    header
        Value of ``OUTPUT_HEADER``.
    model
        The one that is served.
    longest
        Prompt and output tokens of the longest call.
    seed
        Of the lengths that are drawn: the same prompt always gets the same answer.

    Raises
    ------
    RequestError
        Naming the field.
    """
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    asked = body.get("model", model)
    if asked != model:
        raise RequestError(f"The model `{asked}` does not exist.", "model", 404)
    if (_integer(body, "n", 1, 1) or 1) != 1:
        raise RequestError("n must be 1: the emulator gives one choice a prompt", "n")
    for field in ("echo", "logprobs", "best_of"):
        if body.get(field) not in (None, False, 0, 1):
            raise RequestError(f"{field} is not emulated", field)
    stream = _flag(body, "stream")
    options = body.get("stream_options") or {}
    if not isinstance(options, Mapping):
        raise RequestError("stream_options must be an object", "stream_options")
    if options and not stream:
        raise RequestError("stream_options can only be set when stream is true", "stream_options")
    limit_name = "max_completion_tokens" if chat and body.get("max_completion_tokens") is not None else "max_tokens"
    limit = _integer(body, limit_name, None if chat else _COMPLETION_LIMIT, 1)
    least = _integer(body, "min_tokens", 0, 0) or 0
    wanted = _integer(body, OUTPUT_FIELD, None, 1)
    if wanted is None and header is not None:
        wanted = _integer({OUTPUT_FIELD: _number(header)}, OUTPUT_FIELD, None, 1)
    stops = _stops(body)
    exact = _flag(body, "ignore_eos")
    contents = [_chat(body)] if chat else _prompts(body)
    prompts = []
    for content in contents:
        most = _most(tokens.count(content), limit, limit_name, longest)
        if least > most:
            raise RequestError(f"min_tokens must be at most max_tokens ({most}), got {least}", "min_tokens")
        if wanted is not None:
            output = wanted
        elif exact:
            output = most
        else:
            rng = np.random.default_rng((seed, zlib.crc32(content)))
            output = math.ceil(rng.lognormal(_LENGTHS_MEAN, _LENGTHS_SPREAD))
        prompts.append(_asked(content, min(max(output, least, 1), most), most, least, stops))
    return Request(
        chat, tuple(prompts), stream, bool(options.get("include_usage")), _integer(body, "priority", 0, -(1 << 62)) or 0
    )


def _asked(content: bytes, output: int, most: int, least: int, stops: list[str]) -> Asked:
    """The answer of ``output`` tokens, or as far as the first stop string behind ``least`` tokens."""
    text = tokens.answer(content, output)
    begin = least * tokens.TOKEN_BYTES
    found = min(((at, stop) for stop in stops if (at := text.find(stop, begin)) >= 0), default=None)
    if found is not None:
        at, stop = found
        return Asked(content, -(-(at + len(stop)) // tokens.TOKEN_BYTES), text[:at], "stop")
    return Asked(content, output, text, "length" if output == most else "stop")


def _most(prompt: int, limit: int | None, limit_name: str, longest: int) -> int:
    """Output tokens that a prompt of ``prompt`` tokens may have."""
    if prompt + 1 > longest:
        raise RequestError(
            f"This model's maximum context length is {longest} tokens. However, your request has {prompt} input "
            "tokens. Please reduce the length of the input messages.",
            "input_tokens",
        )
    if limit is None:
        return longest - prompt
    if prompt + limit > longest:
        raise RequestError(
            f"'{limit_name}' is too large: {limit}. This model's maximum context length is {longest} tokens and your "
            f"request has {prompt} input tokens ({limit} > {longest} - {prompt}).",
            limit_name,
        )
    return limit


def _prompts(body: Mapping[str, Any]) -> list[bytes]:
    """``prompt``: a text, token ids, or a list of either."""
    prompt = body.get("prompt")
    if isinstance(prompt, str) or (isinstance(prompt, list) and prompt and isinstance(prompt[0], int)):
        prompt = [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise RequestError("prompt must be a text, a list of token ids, or a list of either, and not empty", "prompt")
    return [_content(one) for one in prompt]


def _content(prompt: Any) -> bytes:
    if isinstance(prompt, str) and prompt:
        return prompt.encode("utf-8", "replace")
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        if min(prompt) < 0 or max(prompt) > tokens.LARGEST_ID:
            raise RequestError(f"prompt has a token id outside 0 to {tokens.LARGEST_ID}", "prompt")
        return tokens.from_ids(prompt)
    raise RequestError("prompt must be a text or a list of token ids, and not empty", "prompt")


def _chat(body: Mapping[str, Any]) -> bytes:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages must be a list of messages, and not empty", "messages")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RequestError("a message must be an object with a role", f"messages[{number}]")
        if not isinstance(message.get("content"), str | list | None):
            raise RequestError("content must be a text or a list of parts", f"messages[{number}].content")
    return tokens.from_messages(messages)


def content_of(body: Any) -> bytes:
    """The prompt in the ``body`` of a request to tokenise."""
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    return _chat(body) if "messages" in body else _content(body.get("prompt"))


def _stops(body: Mapping[str, Any]) -> list[str]:
    stops = body.get("stop") or []
    stops = [stops] if isinstance(stops, str) else stops
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise RequestError("stop must be a text or a list of texts", "stop")
    return stops


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise RequestError(f"{name} must be true or false, got {value!r}", name)


def _integer(body: Mapping[str, Any], name: str, default: int | None, low: int) -> int | None:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int:
        raise RequestError(f"{name} must be a whole number, got {value!r}", name)
    if value < low:
        raise RequestError(f"{name} must be at least {low}, got {value}", name)
    return value


def _number(header: bytes) -> int | str:
    text = header.decode("latin-1")
    return int(text) if text.isdecimal() else text
