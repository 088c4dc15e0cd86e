"""Prompts are laid out so that nothing goes through the model twice, and cut into batches by tokens."""

from components.evaluate.rows import make_batches, make_groups

BEGINNING = list(range(100, 140))


def request(context: list[int], option: list[int]):
    return (("prompt", "option"), context, option)


def test_options_of_one_token_are_scored_on_one_prompt():
    (group,) = make_groups([request([1, 2, 3], [7]), request([1, 2, 3], [8])], max_length=10)
    (row,) = group.rows
    assert (group.prefix, row.tokens, row.branches, row.is_plain) == ([], [1, 2, 3], [], True)
    assert [(o.request, o.places, o.tokens) for o in row.options] == [(0, (2,), (7,)), (1, (2,), (8,))]


def test_longer_options_follow_their_prompt_as_branches_and_one_that_begins_another_shares_its():
    options = [[7, 8, 9], [7, 5], [4, 4], [6]]
    (group,) = make_groups([request([1, 2], option) for option in options], max_length=10)
    (row,) = group.rows
    assert row.tokens == [1, 2, 7, 8, 4]
    assert row.branches == [2, 1]
    assert row.positions == [0, 1, 2, 3, 2]
    assert [o.places for o in row.options] == [(1, 2, 3), (1, 2), (1, 4), (1,)]


def test_prompts_that_begin_alike_share_their_beginning_but_for_each_ones_last_token():
    groups = make_groups([request([*BEGINNING, n, 5], [7]) for n in (1, 2)] + [request(BEGINNING, [7])], 99)
    (group,) = groups
    assert group.prefix == BEGINNING[:-1]
    assert [row.tokens for row in group.rows] == [[139, 1, 5], [139, 2, 5], [139]]
    assert [row.options[0].places for row in group.rows] == [(2,), (2,), (0,)]


def test_other_beginnings_make_other_groups_and_single_prompts_share_one():
    other = [token + 100 for token in BEGINNING]
    contexts = [[*BEGINNING, 1], [*BEGINNING, 2], [*other, 1], [*other, 2], [3, 4], [5] * 50]
    groups = make_groups([request(context, [9]) for context in contexts], 99)
    assert sorted(len(group.rows) for group in groups) == [2, 2, 2]
    assert [group.prefix for group in groups if [3, 4] in [row.tokens for row in group.rows]] == [[]]


def test_a_beginning_is_shared_where_that_is_cheaper_than_to_compute_it_again():
    def shared(beginning: int, rest: int, rows: int, token_cost: float) -> bool:
        contexts = [[*range(beginning), *[9000 + n] * rest] for n in range(rows)]
        groups = make_groups([request(context, [7]) for context in contexts], 99_999, token_cost=token_cost)
        return any(group.prefix for group in groups)

    assert shared(2000, 400, 12, 1536.0), "solved examples before every question"
    assert not shared(400, 2000, 2, 1536.0), "two prompts that were drawn the same first example"
    assert shared(400, 2000, 2, 24576.0), "the same with a model that is sixteen times as wide"
    assert not shared(30, 400, 500, 1536.0)


def test_an_input_that_is_too_long_loses_its_start_each_option_for_itself():
    (group,) = make_groups([request([1, 2, 3, 4], [7]), request([1, 2, 3, 4], [8, 9])], max_length=4)
    rows = {row.options[0].request: row for row in group.rows}
    assert rows[0].tokens == [1, 2, 3, 4]
    assert rows[1].tokens == [2, 3, 4, 8]
    assert rows[1].options[0].places == (2, 3)


def test_rows_longer_than_a_sliding_window_are_computed_by_themselves():
    requests = [request([*BEGINNING, n], option) for n in (1, 2) for option in ([7, 7], [8, 8])]
    (group,) = make_groups(requests, 99, longest_shared=30)
    assert (group.prefix, len(group.rows)) == ([], 4)
    assert all(row.is_plain for row in group.rows)


def test_batches_hold_so_many_tokens_with_their_padding_the_longest_first():
    (group,) = make_groups([request([n] * n, [7]) for n in (2, 9, 4, 5, 3)], 99)
    lengths = [[len(row.tokens) for row in batch] for batch in make_batches(group, tokens=10)]
    assert lengths == [[9], [5, 4], [3, 2]]
    assert [len(batch) for batch in make_batches(group, tokens=1)] == [1] * 5
    assert [len(batch) for batch in make_batches(group, tokens=1000, rows=2)] == [2, 2, 1]
