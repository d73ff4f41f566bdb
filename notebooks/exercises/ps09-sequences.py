# %% [markdown]
# # Problem set 9: log-probabilities of whole completions
#
# For a language model an arm is a whole completion, its end-of-sequence token (EOS) included, and its log-probability
# is a sum over its tokens. Most mistakes in training code are made here: a token too many or too few, padding that
# counts, a mean for a sum. You make none of them, with numpy alone. It goes with notebooks 07 and 08. Ten points, about
# 90 minutes.
#
# Replace every `raise NotImplementedError()` by your own code, with numpy alone: the package `bandit` knows most
# answers, and one that calls it is refused. The cell below each answer tests it, and says what is wrong if something
# is. When you are graded, the same tests run with other numbers too.
#
# | symbol | in the code | meaning |
# | --- | --- | --- |
# | $B$, $T$, $V$ | | rows of a batch, tokens of a row (prompt, completion and padding), size of the vocabulary |
# | | `tokens` | integers, `(B, T)`: prompt, then completion, then padding (the rows are padded on the right) |
# | | `logits` | `(B, T, V)`: those at place $t$ predict the token at place $t + 1$ |
# | | `prompt_lengths` | `(B,)`, tokens of each prompt, at least 1 |
# | | `lengths` | `(B,)`, tokens of prompt and completion together, EOS included, padding not |
#
# The token used for padding may be EOS itself, as it is for many models.

# %% examiner=true
import checks
import numpy as np
from bandit.problem import log_softmax


def random_batch(rng, rows, width, vocabulary):
    """Logits and tokens at random, padded on the right."""
    logits = rng.normal(size=(rows, width, vocabulary)) * 2
    tokens = rng.integers(vocabulary, size=(rows, width))
    prompt_lengths = rng.integers(1, width - 1, size=rows)
    lengths = rng.integers(prompt_lengths + 1, width + 1)
    return logits, tokens, prompt_lengths, lengths


def one_by_one(logits, tokens, starts, ends):
    """Σ ln π(token t | before) over the places starts ≤ t < ends of each row, token by token."""
    sums = np.zeros(len(tokens))
    for row, (start, end) in enumerate(zip(starts, ends)):
        for place in range(max(start, 1), end):
            sums[row] += log_softmax(logits[row, place - 1])[tokens[row, place]]
    return sums


# %%
import numpy as np

import bandit
from ps09_examiner import *


# %% [markdown]
# ## 1. The log-probability of each token
#
# For every place but the first, write $\ln \pi(\text{token at } t \mid \text{tokens before})$: a log-softmax of the logits of
# the place *before*, at the token that came. Logits of a thousand must not overflow.


# %% answer="token_log_probs"
def token_log_probs(logits, tokens):
    """ln π of tokens 1, …, T − 1, an array (B, T − 1)."""
    ### BEGIN SOLUTION
    before = logits[:, :-1] - logits[:, :-1].max(axis=-1, keepdims=True)  # (B, T − 1, V)
    log_probs = before - np.log(np.exp(before).sum(axis=-1, keepdims=True))
    return np.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]
    ### END SOLUTION


# %% examiner=true
def examine_token_log_probs(answer, logits, tokens):
    def chosen(scores, at):
        return np.take_along_axis(scores, at[..., None], axis=-1)[..., 0]

    log_probs = log_softmax(logits)
    right = chosen(log_probs[:, :-1], tokens[:, 1:])
    mistakes = {
        "the logits at place t predict the token at t + 1, not the one at t": chosen(
            log_probs[:, 1:], tokens[:, 1:]
        ),
        "the logits at place t predict the token at t + 1, not the one at t; and the first token is left out": chosen(
            log_probs[:, :-1], tokens[:, :-1]
        ),
        "the first token has no logits before it: return T − 1 numbers, from the logits before each": chosen(
            log_probs, tokens
        ),
        "logits are not log-probabilities: subtract the logarithm of the sum of their exponentials": chosen(
            logits[:, :-1], tokens[:, 1:]
        ),
        "these are probabilities; take logarithms": np.exp(right),
        "the softmax runs over the vocabulary, the last axis": chosen(
            logits[:, :-1] - np.logaddexp.reduce(logits[:, :-1], axis=1, keepdims=True),
            tokens[:, 1:],
        ),
    }
    with np.errstate(all="ignore"):
        found = answer(logits.copy(), tokens.copy())
    checks.close("token_log_probs(...)", found, right, mistakes)


# %% check="token_log_probs" points=2
rng = np.random.default_rng(9)
examine_token_log_probs(token_log_probs, *random_batch(rng, 2, 4, 3)[:2])
examine_token_log_probs(
    token_log_probs, 1000 * rng.normal(size=(1, 4, 3)), np.array([[0, 1, 2, 0]])
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(901)
examine_token_log_probs(token_log_probs, *random_batch(rng, 4, 7, 6)[:2])
examine_token_log_probs(token_log_probs, rng.normal(size=(1, 2, 5)) - 900, np.array([[4, 1]]))
### END HIDDEN TESTS

# %% [markdown]
# ## 2. How long is a completion?
#
# `completions` holds what a model generated after the prompt, `(B, N)`. A completion ends with its *first* EOS, which
# belongs to it; what follows is padding, and may be EOS too. Without EOS it has the full length $N$. Count the tokens.


# %% answer="completion_lengths"
def completion_lengths(completions, eos):
    """Tokens of each completion, EOS included, an integer array (B,)."""
    ### BEGIN SOLUTION
    ended = completions == eos
    return np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, completions.shape[1])
    ### END SOLUTION


# %% examiner=true
def examine_completion_lengths(answer, completions, eos):
    completions = np.array(completions)
    width = completions.shape[1]
    right = np.array([(row.tolist() + [eos]).index(eos) + 1 for row in completions]).clip(max=width)
    ended = (completions == eos).any(axis=1)
    mistakes = {
        "EOS belongs to the completion: the model had to choose it": np.where(
            ended, right - 1, width
        ),
        "a completion without EOS has the full length": np.where(ended, right, 1),
        "a completion without EOS has the full length, and EOS belongs to a completion": np.where(
            ended, right - 1, 0
        ),
        "the padding is EOS too: count up to the first EOS, not the tokens that differ from it": (
            completions != eos
        ).sum(axis=1),
        "it ends with the first EOS, not with the last": np.where(
            ended, width - (completions[:, ::-1] == eos).argmax(axis=1), width
        ),
        "no completion is longer than the array: one without EOS has the full length": np.where(
            ended, right, width + 1
        ),
    }
    found = answer(completions, eos)
    checks.close(f"completion_lengths({completions.tolist()}, {eos})", found, right, mistakes)


# %% check="completion_lengths" points=2
examine_completion_lengths(completion_lengths, [[5, 3, 0, 0], [4, 0, 0, 0], [1, 2, 3, 4]], 0)
examine_completion_lengths(completion_lengths, [[5, 3, 7, 2], [7, 1, 1, 1]], 7)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(902)
examine_completion_lengths(completion_lengths, rng.integers(4, size=(12, 5)), 0)
examine_completion_lengths(completion_lengths, rng.integers(4, size=(12, 5)), 3)
examine_completion_lengths(completion_lengths, [[2], [1]], 1)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The mask
#
# Write which places hold tokens of the completion: the prompt does not count, EOS does, padding does not. Use the
# lengths, never `tokens != padding`.


# %% answer="completion_mask"
def completion_mask(prompt_lengths, lengths, width):
    """True at the places of the completion, an array (B, width)."""
    ### BEGIN SOLUTION
    place = np.arange(width)
    return (place >= prompt_lengths[:, None]) & (place < lengths[:, None])
    ### END SOLUTION


# %% examiner=true
def examine_completion_mask(answer, prompt_lengths, lengths, width):
    prompt_lengths, lengths = np.array(prompt_lengths), np.array(lengths)
    right = np.zeros((len(lengths), width), dtype=bool)
    for row, (start, end) in enumerate(zip(prompt_lengths, lengths)):
        right[row, start:end] = True
    place = np.arange(width)
    start, end = prompt_lengths[:, None], lengths[:, None]
    mistakes = {
        "EOS is left out: it is the last token of the completion": (place >= start)
        & (place < end - 1),
        "the first token of the completion is left out: places are counted from 0": (place > start)
        & (place < end),
        "the last token of the prompt is in it: places are counted from 0": (place >= start - 1)
        & (place < end),
        "the first token of the padding is in it": (place >= start) & (place <= end),
        "the prompt is in it": place < end,
        "the padding is in it": place >= start,
        "`lengths` counts prompt and completion together": (place >= start) & (place < start + end),
        "`lengths` counts from the beginning of the row: the prompt is in it already": (
            place >= start
        )
        & (place < end - start),
        "it is turned round: True marks the completion": ~right,
    }
    found = answer(prompt_lengths, lengths, width)
    checks.close(f"completion_mask({prompt_lengths}, {lengths}, {width})", found, right, mistakes)


# %% check="completion_mask" points=2
examine_completion_mask(completion_mask, [2, 1, 3], [4, 2, 6], 6)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(903)
for sizes in ((5, 9, 2), (8, 6, 2)):
    examine_completion_mask(completion_mask, *random_batch(rng, *sizes)[2:], sizes[1])
### END HIDDEN TESTS

# %% [markdown]
# ## 4. The log-probability of a completion
#
# Put it together: $\ln \pi(\text{completion} \mid \text{prompt})$ of each row, the *sum* over the completion's tokens.


# %% answer="completion_log_prob"
def completion_log_prob(logits, tokens, prompt_lengths, lengths):
    """ln π of each completion, an array (B,)."""
    ### BEGIN SOLUTION
    shifted = logits[:, :-1] - logits[:, :-1].max(axis=-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]
    place = np.arange(1, tokens.shape[1])
    counted = (place >= prompt_lengths[:, None]) & (place < lengths[:, None])
    return np.where(counted, chosen, 0.0).sum(axis=-1)
    ### END SOLUTION


# %% examiner=true
def examine_completion_log_prob(answer, logits, tokens, prompt_lengths, lengths):
    width = np.full(len(tokens), tokens.shape[1])
    right = one_by_one(logits, tokens, prompt_lengths, lengths)
    mistakes = {
        "that is the mean over the tokens: another quantity, with another optimum; take the sum": right
        / (lengths - prompt_lengths),
        "EOS is left out: to stop is a choice too": one_by_one(
            logits, tokens, prompt_lengths, lengths - 1
        ),
        "the prompt is in it: only the completion's tokens are the model's choice": one_by_one(
            logits, tokens, 0 * lengths, lengths
        ),
        "the padding is in it": one_by_one(logits, tokens, prompt_lengths, width),
        "prompt and padding are in it": one_by_one(logits, tokens, 0 * lengths, width),
        "the first token of the completion is left out: the mask has to be shifted like the tokens": one_by_one(
            logits, tokens, prompt_lengths + 1, lengths
        ),
        "everything is a place too late: the mask has to be shifted like the tokens": one_by_one(
            logits, tokens, prompt_lengths + 1, np.minimum(lengths + 1, width)
        ),
        "these are probabilities; their logarithms are asked for": np.exp(right),
    }
    found = answer(logits, tokens, prompt_lengths, lengths)
    checks.close("completion_log_prob(...)", found, right, mistakes)


# %% check="completion_log_prob" points=2
examine_completion_log_prob(completion_log_prob, *random_batch(np.random.default_rng(94), 3, 6, 4))
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(904)
for sizes in ((1, 3, 2), (9, 8, 5)):
    examine_completion_log_prob(completion_log_prob, *random_batch(rng, *sizes))
logits, tokens, prompt_lengths, lengths = random_batch(rng, 4, 7, 5)
tokens[np.arange(7) >= lengths[:, None] - 1] = 0  # EOS, and padding with EOS
examine_completion_log_prob(completion_log_prob, logits, tokens, prompt_lengths, lengths)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Padding on the left
#
# For generation rows are padded on the *left*, so that all prompts end together. A model with learned positions must
# then be told them: the first real token has position 0, the next 1, and so on. (What padding gets does not matter; we
# give it 0.) `attention_mask` is 1 on tokens and 0 on padding, on either side.


# %% answer="positions"
def positions(attention_mask):
    """The position of each token, an integer array (B, T)."""
    ### BEGIN SOLUTION
    return np.where(attention_mask > 0, np.cumsum(attention_mask, axis=1) - 1, 0)
    ### END SOLUTION


# %% examiner=true
def examine_positions(answer, attention_mask):
    mask = np.array(attention_mask)
    right = np.zeros(mask.shape, dtype=int)
    for row, real in enumerate(mask):
        right[row, np.flatnonzero(real)] = np.arange(real.sum())
    mistakes = {
        "places are not positions: the padding on the left must not be counted": np.broadcast_to(
            np.arange(mask.shape[1]), mask.shape
        ),
        "positions begin with 0, not with 1": np.where(mask > 0, right + 1, 0),
        "positions begin with 0, and padding gets 0": np.cumsum(mask, axis=1),
        "padding gets 0, on both sides": np.cumsum(mask, axis=1) - 1,
        "padding gets 0, on the right too": (np.cumsum(mask, axis=1) - 1).clip(min=0),
        "places are not positions: the first token has position 0, wherever it is": mask
        * np.arange(mask.shape[1]),
        "count along each row, not down the columns": np.where(
            mask > 0, np.cumsum(mask, axis=0) - 1, 0
        ),
        "the rows must be counted one by one": np.where(
            mask > 0, np.cumsum(mask).reshape(mask.shape) - 1, 0
        ),
    }
    checks.close(f"positions({mask.tolist()})", answer(mask), right, mistakes)


# %% check="positions" points=2
examine_positions(positions, [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 0, 0]])
### BEGIN HIDDEN TESTS
examine_positions(positions, [[0, 1, 1, 1], [0, 0, 0, 1], [1, 1, 0, 0]])
examine_positions(positions, np.arange(8) >= np.array([[0], [7], [3], [5]]))
### END HIDDEN TESTS
