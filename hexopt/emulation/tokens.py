"""The emulator's tokens: four bytes of UTF-8 each, in prompts and in answers alike.

A token's id is its bytes as a big-endian number; the last token of a text may be shorter. So texts and lists of ids
have one form, bytes; texts that begin alike have tokens that begin alike; and a prompt that quotes an answer is found
in the prefix cache as far as the answer went.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

TOKEN_BYTES = 4
LARGEST_ID = 2**32 - 1

# Pronounceable, and each a token with the blank behind it; a step that shares no factor with their number mixes them.
_SYLLABLES = ["".join(letters) for letters in product("bdfgklmnprstv", "aeiou", "dlmnrst")]
_WORDS = "".join(f"{_SYLLABLES[k * 211 % len(_SYLLABLES)]} " for k in range(len(_SYLLABLES)))


def count(content: bytes) -> int:
    """Tokens of ``content``."""
    return -(-len(content) // TOKEN_BYTES)


def from_ids(ids: Sequence[int]) -> bytes:
    """The content of token ``ids``, each 0 to ``LARGEST_ID``."""
    return struct.pack(f">{len(ids)}I", *ids)


def to_ids(content: bytes) -> list[int]:
    """Token ids of ``content``; a last, shorter token is filled up with zeros."""
    number = count(content)
    return list(struct.unpack(f">{number}I", content.ljust(number * TOKEN_BYTES, b"\0")))


def from_messages(messages: Sequence[Mapping[str, Any]]) -> bytes:
    """The content of a chat; an answer that comes back as a message continues its prompt."""
    parts = [f"<|{message['role']}|>{_text(message.get('content'))}\n" for message in messages]
    return ("".join(parts) + "<|assistant|>").encode()


def _text(content: Any) -> str:
    """A message's text, be it plain or in parts."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or () if isinstance(part, Mapping))


def answer(content: bytes, tokens: int) -> str:
    """The text of ``tokens`` tokens that always follows the prompt ``content``."""
    first = zlib.crc32(content) % len(_SYLLABLES) * TOKEN_BYTES
    size = tokens * TOKEN_BYTES
    return (_WORDS * (size // len(_WORDS) + 2))[first : first + size]


def chunks(content: bytes, tokens: int) -> list[bytes]:
    """The whole chunks of ``tokens`` tokens that ``content`` begins with."""
    size = tokens * TOKEN_BYTES
    return [content[k : k + size] for k in range(0, len(content) - size + 1, size)]
