import gzip
import json
import random

import pytest
from trace_data import GOLDEN

from hexopt.traces import FORMATS, TraceError, Workflow, iter_trace, read_trace
from hexopt.traces.readers.source import Source

FORMAT_OF = {
    "agentic_mooncake.jsonl": "agentic-mooncake",
    "azure_2023.csv": "azure",
    "azure_2024.csv": "azure",
    "burstgpt.csv": "burstgpt",
    "hexgen_flow.json": "hexgen-flow",
    "mooncake.jsonl": "mooncake",
    "otlp.json": "otel",
    "weka.jsonl": "weka",
    "weka_table.csv": "weka-table",
}
golden = pytest.mark.parametrize(("name", "format"), FORMAT_OF.items())


def test_every_format_has_a_golden_file():
    assert set(FORMAT_OF.values()) == set(FORMATS)
    assert {path.name for path in GOLDEN.iterdir()} == set(FORMAT_OF)


@golden
def test_the_format_is_told_from_the_content(name, format):
    assert read_trace(GOLDEN / name) == read_trace(GOLDEN / name, format)


@golden
def test_compressed_files_read_the_same_whatever_their_name(tmp_path, name, format):
    packed = tmp_path / "trace"
    packed.write_bytes(gzip.compress((GOLDEN / name).read_bytes()))
    assert read_trace(packed) == read_trace(GOLDEN / name)


@golden
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path, name, format):
    other = tmp_path / name
    other.write_bytes(b"\xef\xbb\xbf" + (GOLDEN / name).read_bytes().replace(b"\n", b"\r\n"))
    assert read_trace(other) == read_trace(GOLDEN / name)


@golden
def test_workflows_come_one_at_a_time_and_progress_ends_at_the_total(name, format):
    seen: list[tuple[int, int]] = []
    trace = iter_trace(GOLDEN / name, progress=lambda done, total: seen.append((done, total)))
    assert isinstance(next(trace), Workflow)
    list(trace)
    size = (GOLDEN / name).stat().st_size
    assert seen == sorted(seen)
    assert seen[-1] == (size, size)


@pytest.mark.parametrize("packed", [False, True])
def test_progress_on_the_way(tmp_path, packed):
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "2023-11-16 18:17:03.97,48,10\n" * 10_000
    path = tmp_path / "t.csv"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    seen: list[int] = []
    read_trace(path, progress=lambda done, total: seen.append(done))
    assert len(seen) >= 4
    assert seen == sorted(seen)


def test_streaming_formats_do_not_read_ahead(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,48,10\nbroken\n")
    trace = iter_trace(path)
    assert next(trace).id == "call-2"
    with pytest.raises(TraceError, match="line 3"):
        next(trace)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (
            b"a,b,c\n1,2,3\n",
            "its format is not recognised; name it, one of agentic-mooncake, mooncake, hexgen-flow",
        ),
        (b'{"hello": 1}', "its format is not recognised"),
        (b"\xff\xfe\x00\x01", "is no UTF-8 text"),
        (gzip.compress(b"TIMESTAMP,ContextTokens,GeneratedTokens\n" * 500, mtime=0)[:40], "is a damaged gzip file"),
        (b"\x1f\x8bnot gzip", "is a damaged gzip file"),
    ],
)
def test_files_nobody_can_read(tmp_path, content, message):
    path = tmp_path / "what.ever"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=rf"what\.ever: {message}"):
        read_trace(path)


def test_missing_files_unknown_formats_and_folders(tmp_path):
    with pytest.raises(TraceError, match=r"nowhere\.json: cannot be read: No such file"):
        read_trace(tmp_path / "nowhere.json")
    with pytest.raises(TraceError, match="format is 'csv', expected one of agentic-mooncake, "):
        read_trace(GOLDEN / "weka.jsonl", "csv")
    with pytest.raises(TraceError, match=r"holds no file that ends in \.json"):
        read_trace(tmp_path)
    (tmp_path / "a.json").write_bytes((GOLDEN / "hexgen_flow.json").read_bytes())
    with pytest.raises(TraceError, match="is a folder; hexgen-flow is read from one file"):
        read_trace(tmp_path)


BROKEN = {
    "empty": "",
    "blank": "\n\n  \n",
    "cut object": '{"a": [1, 2',
    "number": "7",
    "null": "null",
    "string": '"text"',
    "list of numbers": "[1, 2, 3]",
    "list of null": "[null]",
    "empty object": "{}",
    "empty list": "[]",
    "nan": '{"timestamp": NaN}',
    "huge exponent": '{"timestamp": 1e999, "input_length": 1, "output_length": 1, "hash_ids": []}',
    "huge integer": '{"timestamp": ' + "9" * 5000 + "}",
    "big integer": '{"timestamp": ' + "9" * 400 + ', "input_length": 1, "output_length": 1, "hash_ids": []}',
    "deep": "[" * 100_000,
    "deep and closed": "[" * 5000 + "]" * 5000,
    "wrong types": '{"id": 1, "requests": {}, "spans": 3, "schema": [], "version": {}, "timestamp": "x"}',
    "spans of null": '{"spans": [null]}',
    "resources of null": '{"resourceSpans": [{"resource": 3}]}',
    "two broken lines": '{"a": 1}\n{"a": ',
    "csv without rows": "TIMESTAMP,ContextTokens,GeneratedTokens\n",
    "csv of one column": "x\n1\n",
    "csv with a quote left open": 'trace_id,idx\n"a,1\n',
    "csv with a giant cell": "a,b\n" + "x" * 200_000 + ",1\n",
    "nul bytes": "\x00\x00\x00",
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("strict", [True, False])
def test_broken_files_raise_trace_errors_and_nothing_else(tmp_path, format, content, strict):
    path = tmp_path / "broken"
    path.write_text(content)
    with pytest.raises(TraceError, match="broken"):
        read_trace(path, format, strict=strict)


JUNK = (
    b"",
    b"-1",
    b"null",
    b"NaN",
    b"1e999",
    b'"x"',
    b"[]",
    b"{}",
    b"true",
    b"0",
    b"0.5",
    b",",
    b"\n",
    b"\xff",
    b'"',
    b"99999999999999",
)


@golden
@pytest.mark.parametrize("strict", [True, False])
def test_damaged_files_read_or_raise_trace_errors(tmp_path, name, format, strict):
    draw = random.Random(f"{name}{strict}")
    whole = (GOLDEN / name).read_bytes()
    path = tmp_path / "damaged"
    refused = 0
    for _ in range(250):
        start = draw.randrange(len(whole))
        end = min(len(whole), start + draw.choice((0, 1, 3, 10, 100)))
        path.write_bytes(whole[:start] + draw.choice(JUNK) + whole[end:])
        try:
            read_trace(path, format, strict=strict)
        except TraceError as error:
            assert str(error).startswith(str(path))
            refused += 1
    assert refused


# Cells of CSV files have no types.
@pytest.mark.parametrize(("name", "format"), [item for item in FORMAT_OF.items() if not item[0].endswith(".csv")])
def test_any_value_of_a_wrong_type_reads_or_raises_a_trace_error(tmp_path, name, format):
    lines = (GOLDEN / name).read_text().splitlines() if name.endswith("l") else [(GOLDEN / name).read_text()]
    documents = [json.loads(line) for line in lines]
    draw = random.Random(name)
    path = tmp_path / "typed"
    for _ in range(250):
        changed = json.loads(json.dumps(documents))
        holder, keys = changed, list(range(len(changed)))
        while True:
            key = draw.choice(keys)
            child = holder[key]
            if not isinstance(child, dict | list) or not child or draw.random() < 0.1:
                break
            holder, keys = child, list(child) if isinstance(child, dict) else list(range(len(child)))
        holder[key] = draw.choice([None, -1, True, 1.5, "x", [], {}, [None], {"a": 1}, 10**400, "", "\ud800"])
        path.write_text("".join(json.dumps(document) + "\n" for document in changed))
        try:
            read_trace(path, format)
        except TraceError as error:
            assert str(error).startswith(str(path))


def test_a_source_joins_lines_of_all_files(tmp_path):
    for index in range(2):
        (tmp_path / f"{index}.jsonl").write_text(f'{{"a": {index}}}\n\n{{"b": {index}}}\n')
    source = Source(sorted(tmp_path.iterdir()))
    assert list(source.documents()) == [
        ("line 1", {"a": 0}),
        ("line 3", {"b": 0}),
        ("line 1", {"a": 1}),
        ("line 3", {"b": 1}),
    ]
