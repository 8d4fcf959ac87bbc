"""Tokens are four bytes: texts, ids and chats in one form, and answers that can be quoted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hexopt.emulation import tokens


@given(st.text(min_size=1))
def test_a_text_and_its_ids_are_the_same_content(text):
    content = text.encode("utf-8", "surrogatepass")
    ids = tokens.to_ids(content)
    assert len(ids) == tokens.count(content) == (len(content) + 3) // 4
    assert tokens.from_ids(ids).rstrip(b"\0") == content.rstrip(b"\0")


@given(st.binary(max_size=40), st.integers(1, 5000))
def test_an_answer_has_its_tokens_and_longer_ones_continue_it(content, count):
    text = tokens.answer(content, count)
    assert tokens.count(text.encode()) == count and text.isascii()
    assert tokens.answer(content, count + 7).startswith(text)
    assert all(len(word) == 3 and word.isalpha() for word in text.split())


def test_answers_to_different_prompts_differ():
    assert len({tokens.answer(str(k).encode(), 50) for k in range(40)}) > 30


@given(st.binary(max_size=200), st.integers(1, 9))
def test_chunks_are_the_whole_beginnings(content, size):
    chunks = tokens.chunks(content, size)
    assert all(len(chunk) == 4 * size for chunk in chunks)
    assert content.startswith(b"".join(chunks)) and len(content) - 4 * size * len(chunks) < 4 * size


def test_a_chat_continues_where_its_answer_ended():
    first = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    prompt = tokens.from_messages(first)
    said = tokens.answer(prompt, 30)
    then = [*first, {"role": "assistant", "content": said}, {"role": "user", "content": "More"}]
    assert tokens.from_messages(then).startswith(prompt + said.encode())
