"""A model server of a few lines for the gateway's tests: says what it was asked, and fails on demand.

``python tests/mock_server.py PORT [LOG]`` starts it; ``POST /mock {"fault": ..., "delay": ...}`` changes how it
behaves. The log gets the ``x-request-id`` of every call that was answered to its end, whatever becomes of the server.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any


class MockServer:
    """An ASGI application that answers like vLLM, each token a word."""

    def __init__(self, name: str = "m", log: str = "") -> None:
        self.name = name
        self.log = Path(log) if log else None
        self.fault = ""
        self.delay = 0.0
        self.seen: list[dict[str, Any]] = []
        self.keep = True
        self.running = 0
        self.aborted = 0
        self.finished = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        path = scope["path"]
        if scope["method"] == "GET":
            await self._get(path, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        table = json.loads(body)
        if path == "/mock":
            self.fault = table.get("fault", self.fault)
            self.delay = table.get("delay", self.delay)
            await _json(send, 200, {"seen": self.seen, "aborted": self.aborted, "finished": self.finished})
            return
        headers = {k.decode(): v.decode("latin-1") for k, v in scope["headers"]}
        name = headers.get("x-request-id", "x")
        if self.keep:
            self.seen.append({"path": path, "body": table, "headers": headers})
        self.running += 1
        answer = asyncio.create_task(self._answer(table, send, name))
        gone = asyncio.create_task(_disconnect(receive))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                if answer.result():
                    self.finished += 1
                    if self.log is not None:
                        with self.log.open("a") as log:
                            log.write(name + "\n")
            else:
                self.aborted += 1
        finally:
            answer.cancel()
            gone.cancel()
            self.running -= 1

    async def _get(self, path: str, send: Any) -> None:
        if self.fault == "hang":
            await asyncio.sleep(3600)
        if path == "/health":
            await _json(send, 503 if self.fault == "sick" else 200, {})
        elif path == "/v1/models":
            await _json(send, 200, {"object": "list", "data": [{"id": self.name, "object": "model"}]})
        elif path == "/metrics":
            text = f'vllm:num_requests_running{{engine="0",model_name="m"}} {float(self.running)}\n'
            text += 'vllm:num_requests_waiting{engine="0",model_name="m"} 0.0\n'
            text += 'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25\n'
            await _send(send, 200, text.encode(), b"text/plain")
        else:
            await _json(send, 404, {})

    async def _answer(self, table: dict[str, Any], send: Any, name: str) -> bool:
        """Answer; whether it was with what was asked for."""
        if self.fault == "hang":
            await asyncio.sleep(3600)
        if self.fault == "500":
            await _json(send, 500, {"error": {"message": "out of order"}})
            return False
        if self.fault == "no priority" and table.get("priority"):
            await _json(send, 400, {"error": {"message": "Priority scheduling is not enabled"}})
            return False
        if table.get("model") not in (self.name, None):
            await _json(send, 404, {"error": {"message": f"The model {table['model']!r} does not exist"}})
            return False
        tokens = int(table.get("max_tokens") or table.get("max_completion_tokens") or 4)
        chat = "messages" in table
        prompt = len(json.dumps(table.get("messages") or table.get("prompt"))) // 4
        usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
        usage["prompt_tokens_details"] = {"cached_tokens": 0}  # type: ignore[assignment]
        kind = "chat.completion" if chat else "text_completion"
        base = {"id": name, "object": kind, "created": 1, "model": self.name}
        if not table.get("stream"):
            if self.delay:
                await asyncio.sleep(self.delay)
            text = " ".join(["word"] * tokens)
            choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
            choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            await _json(send, 200, base | {"choices": [choice], "usage": usage})
            return True
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        if self.fault == "silent stream":
            await asyncio.sleep(3600)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for k in range(tokens):
            if self.delay:
                await asyncio.sleep(self.delay / tokens)
            choice = {"index": 0, "finish_reason": None if k < tokens - 1 else "length"}
            choice |= {"delta": {"content": "word "}} if chat else {"text": "word "}
            row = json.dumps(base | {"object": kind + (".chunk" if chat else ""), "choices": [choice]})
            await send({"type": "http.response.body", "body": f"data: {row}\n\n".encode(), "more_body": True})
            if self.fault == "break stream" and k == 1:
                raise ConnectionResetError
        if (table.get("stream_options") or {}).get("include_usage"):
            row = json.dumps(base | {"choices": [], "usage": usage}, separators=(",", ":"))
            await send({"type": "http.response.body", "body": f"data: {row}\n\n".encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
        return True


async def _disconnect(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _json(send: Any, status: int, table: dict[str, Any]) -> None:
    await _send(send, status, json.dumps(table).encode(), b"application/json")


async def _send(send: Any, status: int, body: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    import uvicorn

    server = MockServer(log=sys.argv[2] if len(sys.argv) > 2 else "")
    server.keep = not server.log
    uvicorn.run(server, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", access_log=False)
