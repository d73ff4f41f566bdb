"""Offline data: what comes in, what is refused and by which name, what goes into a batch."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from bandit.llm import Completions

BOS, EOS, PAD = 0, 1, 1
WORDS = ["<s>", "</s>", "the", "cat", "sat", "on", "a", "mat", "."]


@pytest.fixture(scope="module")
def tokenizer():
    """A real tokenizer of nine words, which puts a BOS before every text."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token=".")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>"
    )


PROMPTS = [[2, 3], [5]]
COMPLETIONS = [[[4, 1], [6, 7, 1]], [[8], [4, 4, 4, 1], [2, 1]]]
REWARDS = [[0.5, -1.25], [2.0, 0.0, -3.5]]


def lists(**changes):
    given = {"prompts": PROMPTS, "completions": COMPLETIONS, "rewards": REWARDS} | changes
    return Completions.from_lists(**given)


# ------------------------------------------------------------------------------- what comes in


def test_token_ids_stay_as_they_are():
    data = lists(behavior_log_probs=[[-1, -2], [-3, -4, -5]])
    assert len(data) == 2
    row = data[1]
    assert (row.prompt_ids, row.completion_ids, row.row_id) == ([5], COMPLETIONS[1], 1)
    np.testing.assert_array_equal(row.rewards, REWARDS[1])
    np.testing.assert_array_equal(row.behavior_log_prob, [-3, -4, -5])
    assert row.preference is None
    assert data.fields() == ["reward", "behavior_log_prob"]
    assert repr(data) == "Completions(2 rows in groups of [2, 3], ['reward', 'behavior_log_prob'])"


def test_text_is_tokenized_in_two_pieces_and_ended(tokenizer):
    data = Completions.from_lists(
        ["the cat"], [["sat on a mat", "sat </s>", "sat"]], tokenizer=tokenizer
    )
    assert data[0].prompt_ids == [BOS, 2, 3]
    assert data[0].completion_ids == [[4, 5, 6, 7, EOS], [4, EOS], [4, EOS]]


def test_a_truncated_completion_is_not_ended(tokenizer):
    data = Completions.from_lists(
        ["the cat"], [["sat", "sat on"]], truncated=[[False, True]], tokenizer=tokenizer
    )
    assert data[0].completion_ids == [[4, EOS], [4, 5]]


def test_the_end_can_be_another_token_or_none(tokenizer):
    text = {"prompts": ["the"], "completions": [["cat", "sat"]], "tokenizer": tokenizer}
    assert Completions.from_lists(**text, eos=8)[0].completion_ids == [[3, 8], [4, 8]]
    assert Completions.from_lists(**text, eos=None)[0].completion_ids == [[3], [4]]
    assert lists(eos=1)[1].completion_ids == [[8, 1], [4, 4, 4, 1], [2, 1]]


@pytest.mark.parametrize("scores", [True, False])
def test_chosen_and_rejected(scores, tokenizer):
    record = {"prompt": "the cat", "chosen": "sat", "rejected": "on a", "source": "somewhere"}
    if scores:
        record |= {"chosen_score": 3, "rejected_score": -1}
    data = Completions.from_records([record], tokenizer=tokenizer)
    assert data[0].completion_ids == [[4, EOS], [5, 6, EOS]]
    assert data[0].preference == 1
    assert data.fields() == (["reward", "preference"] if scores else ["preference"])
    if scores:
        np.testing.assert_array_equal(data[0].rewards, [3, -1])


def test_files_and_data_sets_hold_the_same(tmp_path, tokenizer):
    records = [
        {"prompt": "the cat", "completions": ["sat", "on a"], "rewards": [1.0, 2.5]},
        {"prompt": "a", "completions": ["mat", "cat"], "rewards": [-1.0, 0.5]},
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, records)) + "\n\n")
    datasets, parquet = pytest.importorskip("datasets"), tmp_path / "data.parquet"
    datasets.Dataset.from_list(records).to_parquet(str(parquet))
    expected = Completions.from_records(records, tokenizer=tokenizer)
    for data in (
        Completions.from_jsonl(path, tokenizer=tokenizer),
        Completions.from_parquet(parquet, tokenizer=tokenizer),
        Completions.from_dataset(datasets.Dataset.from_list(records), tokenizer=tokenizer),
        Completions.from_lists(
            [r["prompt"] for r in records],
            [r["completions"] for r in records],
            [r["rewards"] for r in records],
            tokenizer=tokenizer,
        ),
    ):
        assert len(data) == 2
        for found, row in zip(data, expected, strict=True):
            assert found[:2] == row[:2]
            np.testing.assert_array_equal(found.rewards, row.rewards)
        assert data.tokenizer_fingerprint == expected.tokenizer_fingerprint != ""


# ---------------------------------------------------------------------------- what is refused


def changed(value):
    """The second row's second completion replaced."""
    return {"completions": [COMPLETIONS[0], [[8], value, [2, 1]]]}


BAD = {
    "empty completion": (changed([]), "completions: expected at least one token"),
    "not text or ids": (changed(None), "completions: expected text or token ids, got NoneType"),
    "not a token id": (changed([3, None]), "completions: expected whole numbers from 0, got None"),
    "too long": (
        {"max_length": 6} | changed([4] * 9),
        "completions: expected at most 6 tokens, got 10",
    ),
    "not finite": (
        {"rewards": [[0, 1], [0, float("nan"), 1]]},
        r"rewards: expected finite numbers, got \[0.0, nan, 1.0\]",
    ),
    "lengths differ": ({"rewards": [[0, 1], [0, 1]]}, r"rewards: expected 3 numbers, got \[0, 1\]"),
    "not a number": (
        {"rewards": [[0, 1], [0, 1, "good"]]},
        "rewards: expected a number, got 'good'",
    ),
    "empty prompt": ({"prompts": [[2, 3], []]}, "prompt: expected at least one token"),
    "not a pair": ({"preferences": [1, 1]}, "preference: expected two completions, got 3"),
    "above 0": (
        {"behavior_log_probs": [[-1, -1], [-1, 0.5, -1]]},
        "behavior_log_prob: expected log-probabilities",
    ),
    "no tokenizer": (changed("text"), "completions: expected token ids, or a tokenizer, got text"),
    "columns differ": (
        {"rewards": [[0, 1], None]},
        r"columns: expected \['rewards'\] as in the rows before, got \[\]",
    ),
    "no completions": (
        {"completions": [COMPLETIONS[0], []], "rewards": None},
        "completions: expected a list of completions",
    ),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_named_or_counted(reason):
    change, message = BAD[reason]
    with pytest.raises(ValueError, match=f"^row 1, {message}"):
        lists(**change)
    data = lists(**change, on_bad="drop")
    assert [row.row_id for row in data] == [0]
    assert dict(data.dropped) == {reason: 1}
    assert "1 dropped" in repr(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(3), "completions: expected text or token ids, got int"),
        ({"completions": [COMPLETIONS[0], 3]}, "completions: expected a list of completions"),
        ({"truncated": [[True, False], 3]}, "truncated: expected 3 values, got 3"),
        (
            {"truncated": [[True, False], [False, "no", 0]]},
            "truncated: expected true or false, got",
        ),
        # In single precision, which losses are computed in, that is infinite.
        ({"rewards": [[0, 1], [0, 1e39, 1]]}, r"rewards: expected numbers up to 3.4e\+38, got"),
        (changed(3) | {"with_prompt": True}, "completions: expected the prompt first"),
    ],
)
def test_a_number_in_place_of_a_list_is_named(change, message):
    with pytest.raises(ValueError, match=rf"^row \d, {message}"):
        lists(**change)


@pytest.mark.parametrize(
    ("prompt", "completion", "column"),
    [
        ("<s> the cat", "sat", "prompt"),
        ("the cat", "<s> sat", "completions"),
        ([BOS, BOS, 2], [4], "prompt"),
        ([BOS, 2], [BOS, 4], "completions"),
    ],
)
def test_a_doubled_beginning_is_refused(tokenizer, prompt, completion, column):
    with pytest.raises(ValueError, match=f"^row 0, {column}: .* got doubled BOS$"):
        Completions.from_lists([prompt], [[completion, completion]], tokenizer=tokenizer)


def test_a_doubled_beginning_in_ids_is_seen_by_those_who_know_the_token():
    rows = ([[5, 5, 2], [5, 2], [5, 2]], [[[4], [3]], [[4], [5, 3]], [[4], [3]]])
    assert len(Completions.from_lists(*rows)) == 3
    data = Completions.from_lists(*rows, bos=5, on_bad="drop")
    assert [row.row_id for row in data] == [2]
    assert dict(data.dropped) == {"doubled BOS": 2}
    with pytest.raises(ValueError, match=r"^row 0, completions: .* got doubled BOS$"):
        Completions.from_lists(*(column[1:] for column in rows), bos=5)
    # A token that ends completions too may be all there is of one.
    assert len(Completions.from_lists([[5, 2]], [[[5], [3]]], bos=5, eos=5)) == 1


def test_bos_can_be_another_token_or_none_than_the_tokenizers(tokenizer):
    doubled = ([[BOS, BOS, 2]], [[[4], [3]]])
    assert len(Completions.from_lists(*doubled, tokenizer=tokenizer, bos=None)) == 1
    with pytest.raises(ValueError, match="doubled BOS"):
        Completions.from_lists([[6, 6]], [[[4], [3]]], tokenizer=tokenizer, bos=6)


@pytest.mark.parametrize("column", ["completions", "rewards", "preference"])
def test_a_pair_that_is_a_group_too_is_refused(column):
    """Which of both would be meant? One of them would be lost without a word."""
    value = {"completions": [[3], [4]], "rewards": [0, 1], "preference": 0.2}[column]
    record = {"prompt": [2], "chosen": [3], "rejected": [4], column: value}
    with pytest.raises(ValueError, match=rf"^row 0, {column}: expected none beside chosen"):
        Completions.from_records([record])
    assert len(Completions.from_records([record | {column: None}])) == 1


def test_rows_keep_their_number_when_others_are_dropped():
    data = Completions.from_lists([[], [3], [4]], [[[2], [3]]] * 3, on_bad="drop")
    assert [row.row_id for row in data] == [1, 2]


def test_completions_that_repeat_their_prompt(tokenizer):
    ids = Completions.from_lists([[2, 3]], [[[2, 3, 4], [2, 3, 5, 1]]], with_prompt=True)
    assert ids[0].completion_ids == [[4], [5, 1]]
    text = Completions.from_lists(
        ["the cat"], [["the cat sat", "the cat on"]], with_prompt=True, tokenizer=tokenizer
    )
    assert text[0].completion_ids == [[4, EOS], [5, EOS]]
    for prompt, other in (([2, 3], [2, 4, 4]), ("the cat", "a cat sat"), ([2, 3], "the cat sat")):
        with pytest.raises(ValueError, match=r"^row 0, completions: expected the prompt first"):
            Completions.from_lists(
                [prompt], [[other, other]], with_prompt=True, tokenizer=tokenizer
            )
    with pytest.raises(ValueError, match=r"^row 0, completions: expected at least one token"):
        Completions.from_lists([[2, 3]], [[[2, 3], [2, 3]]], with_prompt=True)


def test_a_bad_line_of_a_file_is_named(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": [1], "completions": [[2], [3]]}\n{"prompt": [1], "comp')
    with pytest.raises(ValueError, match=r"data.jsonl, line 2: expected JSON, got"):
        Completions.from_jsonl(path)
    path.write_bytes(b'{"prompt": [1], "completions": [[2], [3]]}\n"\xff"\n')
    with pytest.raises(ValueError, match=r"data.jsonl, line 2: expected JSON, got 'utf-8'"):
        Completions.from_jsonl(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"data.jsonl, line 1: expected JSON, got maximum recurs"):
        Completions.from_jsonl(path)
    path.write_text("[1, 2]\n")
    with pytest.raises(ValueError, match=r"data.jsonl, line 1: expected a JSON object"):
        Completions.from_jsonl(path)
    path.write_text('{"prompt": [1], "chosen": [2], "rejected": null}\n')
    with pytest.raises(ValueError, match=r"data.jsonl, record 0, rejected: expected a value"):
        Completions.from_jsonl(path)
    path.write_text('{"prompt": [1], "chosen": [2], "rejected": [3], "chosen_score": 1}\n')
    with pytest.raises(ValueError, match=r"record 0, rewards: expected a number, got None"):
        Completions.from_jsonl(path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_of_other_systems_are_read(tmp_path, end):
    """With a mark of byte order, carriage returns, and separators of lines inside of texts."""
    path, row = tmp_path / "data.jsonl", '{"prompt": [1], "completions": [[2]], "note": "a\u2028é"}'
    path.write_bytes(b"\xef\xbb\xbf" + (row + end + end + row).encode())
    assert len(Completions.from_jsonl(path)) == 2


@pytest.mark.parametrize("content", [b"", b"no Parquet"])
def test_a_file_that_is_no_parquet_is_named(tmp_path, content):
    path = tmp_path / "data.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"data.parquet: expected a Parquet file, got: "):
        Completions.from_parquet(path)


def test_arguments_that_do_not_fit():
    with pytest.raises(
        ValueError, match=r"^rewards: expected an entry for each of 2 prompts, got 1"
    ):
        lists(rewards=[[1, 2]])
    with pytest.raises(ValueError, match=r"^on_bad: expected one of raise, drop; got 'ignore'"):
        lists(on_bad="ignore")
    with pytest.raises(ValueError, match=r"^max_length: expected a positive integer, got 0"):
        lists(max_length=0)
    with pytest.raises(TypeError, match="max_lenght"):
        lists(max_lenght=3)


def test_reference_log_probabilities_of_the_right_shape():
    data = lists().with_reference([[-1, -2], [-3, -4, -5]])
    assert data.fields() == ["reward", "ref_log_prob"]
    np.testing.assert_array_equal(data[1].ref_log_prob, [-3, -4, -5])
    with pytest.raises(ValueError, match="one array for each of 2 rows, got 1"):
        lists().with_reference([[-1, -2]])
    with pytest.raises(ValueError, match=r"expected shape \(3,\) for row 1, got \(2,\)"):
        lists().with_reference([[-1, -2], [-3, -4]])
    with pytest.raises(ValueError, match="finite"):
        lists().with_reference([[-1, -np.inf], [-3, -4, -5]])


def test_a_slice_is_data_too():
    part = lists()[1:]
    assert isinstance(part, Completions)
    assert [row.row_id for row in part] == [1]


# --------------------------------------------------------------------------------- messages

TEMPLATE = (
    "{% for m in messages %}{% if m.role not in ('user', 'assistant') %}"
    "{{ raise_exception('who is ' + m.role + '?') }}{% endif %}"
    "<s> {{ 'on' if m.role == 'user' else 'a' }} {{ m.content }} </s> . {% endfor %}"
    "{% if add_generation_prompt %}<s> a {% endif %}"
)


@pytest.fixture
def chatting(tokenizer):
    """With a template that writes a full stop between messages."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


def test_messages_are_rendered_by_the_template(chatting):
    """The answer ends with its end: what the template writes between messages is not learned."""
    records = [
        {"prompt": user("the cat"), "completions": [assistant("sat on"), "mat"]},
        {"prompt": user("the cat"), "chosen": assistant("sat"), "rejected": assistant("on")},
    ]
    group, pair = (Completions.from_records([r], tokenizer=chatting)[0] for r in records)
    assert group.prompt_ids == pair.prompt_ids == [BOS, 5, 2, 3, EOS, 8, BOS, 6]
    assert group.completion_ids == [[4, 5, EOS], [7, EOS]]
    assert pair.completion_ids == [[4, EOS], [5, EOS]]
    assert pair.preference == 1
    # What the template would have written, up to the end of the answer.
    whole = chatting.apply_chat_template(user("the cat") + assistant("sat on"), tokenize=True)
    whole = list(whole["input_ids"])
    assert whole[: whole.index(8, 7)] == group.prompt_ids + group.completion_ids[0]


def test_a_truncated_answer_is_not_ended(chatting):
    record = {"prompt": user("the"), "completions": [assistant("sat on")] * 2}
    data = Completions.from_records([record | {"truncated": [True, False]}], tokenizer=chatting)
    assert data[0].completion_ids == [[4, 5], [4, 5, EOS]]
    data = Completions.from_records([record], tokenizer=chatting, eos=5)
    assert data[0].completion_ids == [[4, 5]] * 2


def test_answers_may_repeat_their_prompt(chatting):
    first = user("the cat")
    record = {"prompt": first, "completions": [first + assistant(y) for y in ("sat", "on")]}
    data = Completions.from_records([record], tokenizer=chatting, with_prompt=True)
    assert data[0].completion_ids == [[4, EOS], [5, EOS]]
    record["prompt"] = user("a cat")
    with pytest.raises(ValueError, match=r"^row 0, completions: expected the prompt first"):
        Completions.from_records([record], tokenizer=chatting, with_prompt=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": [{"role": "nobody", "content": "a"}]}, "prompt: .*: who is nobody"),
        ({"prompt": "the cat"}, "completions: expected text after a text, got messages"),
        ({"completions": [user("sat")] * 2}, "completions: expected one message of .* got user"),
        (
            {"completions": [assistant("a") + user("a") + assistant("a"), "a"]},
            "completions: expected one message of the assistant, got assistant, user, assistant",
        ),
        (
            {"completions": ["a", assistant("")], "truncated": [False, True]},
            "completions: .* one token",
        ),
    ],
)
def test_messages_that_do_not_fit_are_named(chatting, change, message):
    record = {"prompt": user("the"), "completions": [assistant("sat")] * 2} | change
    with pytest.raises(ValueError, match=f"^row 0, {message}"):
        Completions.from_records([record], tokenizer=chatting)
    data = Completions.from_records([record], tokenizer=chatting, on_bad="drop")
    assert (len(data), sum(data.dropped.values())) == (0, 1)


def test_messages_need_a_template(tokenizer, chatting):
    record = {"prompt": user("the"), "completions": [assistant("sat")]}
    for given in (None, tokenizer):
        with pytest.raises(ValueError, match=r"prompt: expected a tokenizer with a chat template"):
            Completions.from_records([record], tokenizer=given)
    chatting.chat_template = "{{ messages | length }}"
    with pytest.raises(ValueError, match="completions: expected a chat template that writes an"):
        Completions.from_records([record], tokenizer=chatting)


# ----------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("pad", [EOS, 0])
def test_a_batch_is_padded_on_the_right_and_masked_by_length(pad):
    data = lists().with_reference([[-1, -2], [-3, -4, -5]])
    batch = Completions.collate(list(data), pad)
    p = pad
    expected = [[2, 3, 4, 1, p], [2, 3, 6, 7, 1], [5, 8, p, p, p], [5, 4, 4, 4, 1], [5, 2, 1, p, p]]
    assert batch["input_ids"].tolist() == expected
    assert batch["attention_mask"].sum(1).tolist() == [4, 5, 2, 5, 3]
    assert batch["completion_mask"].sum(1).tolist() == [2, 3, 1, 4, 2]
    # The completion's own EOS counts although it is the padding token too.
    assert batch["completion_mask"][0].tolist() == [0, 0, 1, 1, 0]
    assert batch["completion_mask"][4].tolist() == [0, 1, 1, 0, 0]
    assert batch["group_sizes"].tolist() == [2, 3]
    assert batch["row_id"].tolist() == [0, 1]
    assert batch["reward"].tolist() == [0.5, -1.25, 2, 0, -3.5]
    assert batch["ref_log_prob"].tolist() == [-1, -2, -3, -4, -5]
    assert "preference" not in batch
    assert all(isinstance(values, torch.Tensor) for values in batch.values())
