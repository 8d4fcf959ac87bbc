"""Errors that clients see, in OpenAI's form."""

from __future__ import annotations

import orjson


class ServiceError(Exception):
    """An error with its HTTP status.

    Parameters
    ----------
    status
        HTTP status.
    message
        What is wrong and what was expected.
    kind
        OpenAI's ``type``.
    retry_after
        Seconds after which to try again, where that may help.
    """

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", retry_after: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.retry_after = retry_after

    def body(self) -> bytes:
        """The answer's JSON."""
        return error_body(self.status, self.message, self.kind)


def error_body(status: int, message: str, kind: str) -> bytes:
    """An error as OpenAI's clients read it."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": status}})
