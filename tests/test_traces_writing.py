import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_data import GOLDEN, shared_tokens

from hexopt.traces import Prefix, Stage, TraceError, Workflow, read_trace, write_trace

seconds = st.floats(0, 1e6, allow_nan=False)
names = st.text(st.characters(exclude_categories=()), max_size=4) | st.sampled_from(["a", "a/b", "%", "b/c"])


@st.composite
def stages(draw):
    found: list[Stage] = []
    for index in range(draw(st.integers(1, 5))):
        prefixes, local = [], False
        for segment in draw(st.lists(st.sampled_from("xyz"), max_size=3)):
            local = local or draw(st.booleans())
            prefixes.append(Prefix(segment, draw(st.integers(1, 9)), local))
        rest = draw(st.integers(0, 9))
        prompt = max(1, sum(prefix.tokens for prefix in prefixes) + rest)
        covered = sum(prefix.tokens for prefix in prefixes) == prompt
        found.append(
            Stage(
                id=f"{draw(names)}{index}",
                kind=draw(names),
                prompt_tokens=prompt,
                output_tokens=draw(st.integers(1, 5)),
                parents=tuple(draw(st.lists(st.sampled_from([s.id for s in found]), max_size=3)) if found else ()),
                prefixes=tuple(prefixes),
                output_segment=draw(st.none() | names) if covered else None,
                tool_delay=draw(seconds),
            )
        )
    return tuple(found)


@st.composite
def traces(draw):
    ids = draw(st.lists(names.filter(bool), min_size=1, max_size=4, unique=True))
    return [
        Workflow(
            id=id_,
            stages=draw(stages()),
            arrival=draw(seconds),
            deadline=draw(st.none() | st.floats(1e-9, 1e6)),
            weight=draw(st.floats(1e-9, 1e6)),
            tenant=draw(names),
            family=draw(names),
        )
        for id_ in ids
    ]


@settings(deadline=None)
@given(trace=traces(), block=st.integers(1, 7), packed=st.booleans())
def test_reading_gives_back_what_was_written(tmp_path_factory, trace, block, packed):
    path = tmp_path_factory.mktemp("t") / ("t.jsonl.gz" if packed else "t.jsonl")
    assert write_trace(trace, path, block_size=block) == len(trace)
    assert read_trace(path) == trace
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@settings(deadline=None)
@given(trace=traces(), block=st.integers(1, 7))
def test_plain_hash_ids_share_exactly_the_full_blocks_of_the_prefixes(tmp_path_factory, trace, block):
    path = tmp_path_factory.mktemp("t") / "t.jsonl"
    write_trace(trace, path, block_size=block)
    rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    placed = [(workflow.id, stage) for workflow in trace for stage in workflow.stages]
    for (play, stage), row in zip(placed, rows, strict=True):
        assert len(row["hash_ids"]) == -(-stage.prompt_tokens // block)
        assert len(set(row["hash_ids"])) == len(row["hash_ids"])
        for (other_play, other), other_row in zip(placed, rows, strict=True):
            if other is stage and other_play == play:
                continue
            pairs = zip(row["hash_ids"], other_row["hash_ids"], strict=False)
            equal = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
            equal = min(len(row["hash_ids"]), len(other_row["hash_ids"])) if equal is None else equal
            assert equal == shared_in(play, stage, other_play, other) // block


def shared_in(play: str, stage: Stage, other_play: str, other: Stage) -> int:
    """Shared tokens of two prompts, local segments being those of one play only."""

    def placed(play: str, prefixes: tuple[Prefix, ...]) -> tuple[Prefix, ...]:
        local = False
        named = []
        for prefix in prefixes:
            local = local or prefix.local
            named.append(Prefix(f"{play if local else ''}|{prefix.local}|{prefix.segment}", prefix.tokens))
        return tuple(named)

    return shared_tokens(placed(play, stage.prefixes), placed(other_play, other.prefixes))


def test_another_tool_sees_the_same_graph(tmp_path):
    """Strip what only HexOpt reads: structure, lengths, delays and arrivals survive in the plain fields."""
    trace = read_trace(GOLDEN / "weka.jsonl")
    write_trace(trace, tmp_path / "t.jsonl")
    records = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    (tmp_path / "plain.jsonl").write_text(
        "".join(json.dumps({k: v for k, v in record.items() if k != "x_hexopt"}) + "\n" for record in records)
    )
    plain = read_trace(tmp_path / "plain.jsonl")
    for one, other in zip(trace, plain, strict=True):
        assert one.arrival == other.arrival
        for stage, seen in zip(one.stages, other.stages, strict=True):
            assert seen.id == f"{one.id}/{stage.id}"
            assert (seen.prompt_tokens, seen.output_tokens) == (stage.prompt_tokens, stage.output_tokens)
            assert seen.parents == tuple(f"{one.id}/{parent}" for parent in stage.parents)
            assert seen.tool_delay == pytest.approx(stage.tool_delay)
            assert sum(p.tokens for p in seen.prefixes) == stage.prompt_tokens // 64 * 64


def test_relations_and_sessions(tmp_path):
    def stage(id_: str, *parents: str) -> Stage:
        return Stage(id_, "k", 10, 1, parents)

    fork = Workflow("w", (stage("a"), stage("b", "a"), stage("c", "a"), stage("d", "b", "c")))
    write_trace([fork], tmp_path / "t.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()[1:]]
    assert [row["session_id"] for row in rows] == ["w/a", "w/a", "w/c", "w/a"]
    assert [[d["relation"] for d in row["dependencies"]] for row in rows] == [
        [],
        ["sequence"],
        ["spawn"],
        ["join"] * 2,
    ]


def test_same_bytes_every_time(tmp_path):
    trace = read_trace(GOLDEN / "hexgen_flow.json")
    for name in ("a.gz", "b.gz"):
        write_trace(trace, tmp_path / name)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()).startswith(
        b'{"schema":"dynamo.agentic_mooncake","version":2'
    )


def test_nothing_half_done_is_left(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("precious")
    one = Workflow("w", (Stage("a", "k", 10, 1),))
    with pytest.raises(TraceError, match="not written before"):
        write_trace([one, one], path)
    with pytest.raises(TraceError, match="block_size is 0"):
        write_trace([one], path, block_size=0)
    assert path.read_text() == "precious"
    assert [file.name for file in tmp_path.iterdir()] == ["t.jsonl"]
    with pytest.raises(TraceError, match="cannot be written"):
        write_trace([one], tmp_path / "missing" / "t.jsonl")
