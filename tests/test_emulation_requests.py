"""What is asked is what is understood; what cannot be is refused by field."""

from __future__ import annotations

from typing import Any

import pytest

from hexopt.emulation import tokens
from hexopt.emulation.requests import Request, RequestError, parse

LONGEST = 400


def asked(chat: bool = False, header: bytes | None = None, seed: int = 0, **fields: Any) -> Request:
    body = {"messages": [{"role": "user", "content": "Hello"}]} if chat else {"prompt": "Hello, you"}
    return parse(body | fields, chat, header, "m", LONGEST, seed)


def output(**fields: Any) -> int:
    return asked(**fields).prompts[0].output


def test_prompts_in_all_forms():
    ids = tokens.to_ids(b"Hello, you!!")
    for prompt, wanted in (
        ("Hello, you!!", [b"Hello, you!!"]),
        (ids, [b"Hello, you!!"]),
        (["Hello, you!!", "Bye."], [b"Hello, you!!", b"Bye."]),
        ([ids, ids[:1]], [b"Hello, you!!", b"Hell"]),
    ):
        assert [one.content for one in asked(prompt=prompt).prompts] == wanted


def test_output_lengths():
    assert output(max_tokens=50, ignore_eos=True) == 50
    assert output(ignore_eos=True) == 16
    assert output(chat=True, ignore_eos=True) == LONGEST - tokens.count(b"<|user|>Hello\n<|assistant|>")
    assert output(chat=True, max_completion_tokens=9, max_tokens=20, ignore_eos=True) == 9
    assert output(max_tokens=50, emulated_output_tokens=33) == 33
    assert output(max_tokens=50, emulated_output_tokens=99) == 50
    assert output(max_tokens=50, emulated_output_tokens=3, min_tokens=8) == 8
    assert output(max_tokens=50, header=b"31") == 31
    assert output(max_tokens=50, header=b"31", emulated_output_tokens=7) == 7


def test_drawn_lengths_depend_on_prompt_and_seed_alone():
    drawn = [output(prompt=f"{k}", max_tokens=390) for k in range(200)]
    assert drawn == [output(prompt=f"{k}", max_tokens=390) for k in range(200)]
    assert drawn != [output(prompt=f"{k}", max_tokens=390, seed=1) for k in range(200)]
    assert len(set(drawn)) > 80 and 100 < sum(drawn) / 200 < 250 and min(drawn) >= 1 and max(drawn) <= 390


def test_reasons():
    assert asked(max_tokens=5, ignore_eos=True).prompts[0].reason == "length"
    assert asked(max_tokens=50, emulated_output_tokens=33).prompts[0].reason == "stop"


def test_an_answer_ends_at_a_stop_string():
    whole = asked(max_tokens=40, ignore_eos=True).prompts[0].text
    stop = whole.split()[5]
    one = asked(max_tokens=40, ignore_eos=True, stop=["???", stop]).prompts[0]
    at = whole.find(stop)
    assert (one.text, one.output, one.reason) == (whole[:at], (at + 3 + 3) // 4, "stop")
    later = asked(max_tokens=40, ignore_eos=True, stop=stop, min_tokens=30).prompts[0]
    assert later.output >= 30


@pytest.mark.parametrize(
    ("fields", "param", "status", "words"),
    [
        ({"model": "other"}, "model", 404, "`other` does not exist"),
        ({"prompt": ""}, "prompt", 400, "not empty"),
        ({"prompt": []}, "prompt", 400, "not empty"),
        ({"prompt": [1, "a"]}, "prompt", 400, "token ids"),
        ({"prompt": [-1]}, "prompt", 400, "outside 0 to"),
        ({"prompt": None}, "prompt", 400, "text"),
        ({"max_tokens": 0}, "max_tokens", 400, "at least 1, got 0"),
        ({"max_tokens": 2.5}, "max_tokens", 400, "whole number"),
        ({"max_tokens": True}, "max_tokens", 400, "whole number"),
        ({"max_tokens": 398}, "max_tokens", 400, "'max_tokens' is too large: 398"),
        ({"prompt": "x" * 1600}, "input_tokens", 400, "maximum context length is 400 tokens"),
        ({"min_tokens": 17}, "min_tokens", 400, "at most max_tokens (16)"),
        ({"n": 2}, "n", 400, "n must be 1"),
        ({"stream": "yes"}, "stream", 400, "true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", 400, "when stream is true"),
        ({"stream": True, "stream_options": [1]}, "stream_options", 400, "object"),
        ({"priority": "high"}, "priority", 400, "whole number"),
        ({"stop": [""]}, "stop", 400, "list of texts"),
        ({"logprobs": 3}, "logprobs", 400, "not emulated"),
        ({"emulated_output_tokens": 0}, "emulated_output_tokens", 400, "at least 1"),
        ({"header": b"many"}, "emulated_output_tokens", 400, "whole number"),
        ({"chat": True, "messages": []}, "messages", 400, "not empty"),
        ({"chat": True, "messages": [{"content": "x"}]}, "messages[0]", 400, "role"),
        ({"chat": True, "messages": [{"role": "user", "content": 3}]}, "messages[0].content", 400, "text or a list"),
    ],
)
def test_refusals_name_the_field(fields, param, status, words):
    with pytest.raises(RequestError) as refused:
        asked(**fields)
    assert (refused.value.param, refused.value.status) == (param, status)
    assert words in str(refused.value)


def test_a_body_must_be_an_object():
    with pytest.raises(RequestError, match="JSON object"):
        parse([1], False, None, "m", LONGEST, 0)
