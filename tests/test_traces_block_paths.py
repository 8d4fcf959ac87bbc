from hypothesis import given
from hypothesis import strategies as st
from trace_data import shared_tokens

from hexopt.traces.readers.block_paths import BlockPaths


def common(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@given(st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=12), st.integers(0, 3)), max_size=12))
def test_prompts_share_exactly_the_blocks_on_which_their_lists_agree(prompts):
    paths = BlockPaths(4, local=False)
    full = [(blocks, 4 * len(blocks) + tail) for blocks, tail in prompts]
    held = [paths.prefixes(blocks, tokens) for blocks, tokens in full]
    for (blocks, _), one in zip(full, held, strict=True):
        assert sum(prefix.tokens for prefix in one) == 4 * len(blocks)
        for (others, _), other in zip(full, held, strict=True):
            assert shared_tokens(one, other) == 4 * common(blocks, others)


def test_a_growing_conversation_stays_one_segment():
    paths = BlockPaths(64, local=True)
    blocks = list(range(2000))
    for turn in range(100, 2000, 100):
        (prefix,) = paths.prefixes(blocks[:turn], 64 * turn)
        assert prefix.tokens == 64 * turn
        assert prefix.local


def test_a_block_that_the_prompt_does_not_fill_is_left_out():
    (prefix,) = BlockPaths(512, local=False).prefixes([7, 8, 9], 1500)
    assert prefix.tokens == 1024
    assert BlockPaths(512, local=False).prefixes([7], 500) == ()
