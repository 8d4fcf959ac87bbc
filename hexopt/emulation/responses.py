"""The emulator's answers in OpenAI's form."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

from hexopt.emulation.requests import Request, RequestError

DONE = b"data: [DONE]\n\n"
_numbers = itertools.count()
_KINDS = {400: "BadRequestError", 404: "NotFoundError", 405: "MethodNotAllowed", 500: "InternalServerError"}


def error(problem: RequestError) -> bytes:
    """The body of a refusal."""
    kind = _KINDS.get(problem.status, "BadRequestError")
    body = {"message": str(problem), "type": kind, "param": problem.param, "code": problem.status}
    return json.dumps({"error": body}).encode()


class Answer:
    """The answer to one request, whole or in parts."""

    def __init__(self, request: Request, model: str) -> None:
        self._request = request
        self._model = model
        self._created = int(time.time())
        self._id = f"{'chatcmpl' if request.chat else 'cmpl'}-{self._created:x}{next(_numbers):08x}"
        kind = ("chat.completion.chunk" if request.stream else "chat.completion") if request.chat else "text_completion"
        head = {"id": self._id, "object": kind, "created": self._created, "model": model}
        self._head = json.dumps(head)[:-1]

    def whole(self, cached: int) -> bytes:
        """Everything at once; ``cached`` prompt tokens were found."""
        choices = []
        for index, one in enumerate(self._request.prompts):
            choice: dict[str, Any] = {"index": index, "logprobs": None}
            if self._request.chat:
                choice["message"] = {"role": "assistant", "content": one.text, "tool_calls": []}
            else:
                choice["text"] = one.text
            choices.append(choice | {"finish_reason": one.reason, "stop_reason": None})
        return self._with(choices, self.usage(cached))

    def first(self, index: int) -> bytes:
        """The event that opens choice ``index``; completions have none."""
        if not self._request.chat:
            return b""
        return self._event([self._choice(index, {"role": "assistant", "content": ""}, None)])

    def part(self, index: int, text: str, last: bool) -> bytes:
        """The event of one token."""
        reason = self._request.prompts[index].reason if last else None
        return self._event([self._choice(index, {"content": text} if self._request.chat else text, reason)])

    def usage_event(self, cached: int) -> bytes:
        """The event behind the last token of all, where the client wants it."""
        return b"data: " + self._with([], self.usage(cached)) + b"\n\n" if self._request.include_usage else b""

    def usage(self, cached: int) -> dict[str, Any]:
        """Tokens of the request."""
        prompt = sum(-(-len(one.content) // 4) for one in self._request.prompts)
        output = sum(one.output for one in self._request.prompts)
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + output,
            "completion_tokens": output,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _choice(self, index: int, content: Any, reason: str | None) -> dict[str, Any]:
        name = "delta" if self._request.chat else "text"
        return {"index": index, name: content, "logprobs": None, "finish_reason": reason}

    def _event(self, choices: list[dict[str, Any]]) -> bytes:
        return b"data: " + self._with(choices, None) + b"\n\n"

    def _with(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
        body = f'{self._head}, "choices": {json.dumps(choices)}'
        return (body + (f', "usage": {json.dumps(usage)}}}' if usage is not None else "}")).encode()
