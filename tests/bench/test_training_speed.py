"""Steps per second of sampled training: 100 runs of CoPG with Adam on three arms, 128 pairs a step.

The rivals do the same with what their libraries are made for: pairs drawn one by one, gradients
by automatic differentiation, runs as a leading axis, in float32 (``bandit`` computes in float64),
torch on one thread, JAX on as many as it likes. Our times include setting up. All rows come from
one session on one machine: compare them with each other only. Every contender has to arrive at the
optimum.
"""

from __future__ import annotations

import numpy as np
import pytest

import bandit
from bandit import losses, presets

RUNS, BATCH, LR = 100, 128, 0.01
PROBLEM = presets.three_armed_bandit()
MU = presets.three_armed_behavior()
STEPS = 400


def assert_optimal(logits: np.ndarray) -> None:
    policy = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    assert np.abs(policy.mean(axis=0) - PROBLEM.optimal_policy()).max() < 0.02


def our_loop(batch_size: int = BATCH, steps: int = STEPS) -> bandit.History:
    return bandit.train(
        PROBLEM,
        losses.copg,
        pairs=bandit.pairs.independent(MU),
        batch_size=batch_size,
        steps=steps,
        optimizer=bandit.Adam(LR),
        runs=RUNS,
        rng=0,
    )


def test_bandit(per_step):
    per_step("bandit.train", lambda: our_loop(steps=4 * STEPS), 4 * STEPS)
    assert_optimal(our_loop().logits[-1])


@pytest.mark.parametrize("batch_size", [10**2, 10**3, 10**4, 10**5, 10**6])
def test_bandit_by_batch_size(per_step, batch_size):
    name = f"bandit.train, {batch_size} pairs a step"
    per_step(name, lambda: our_loop(batch_size, 4 * STEPS), 4 * STEPS)


def torch_loop(shared_draw: bool) -> np.ndarray:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    reward = torch.tensor(PROBLEM.reward, dtype=torch.float32)
    reference = torch.tensor(PROBLEM.log_reference, dtype=torch.float32)
    mu = torch.tensor(MU, dtype=torch.float32)
    logits = reference.repeat(RUNS, 1).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=LR)
    for _ in range(STEPS):
        if shared_draw:
            arms = torch.multinomial(mu, RUNS * BATCH * 2, replacement=True).view(RUNS, -1)
        else:
            arms = torch.multinomial(mu.expand(RUNS, -1), BATCH * 2, replacement=True)
        log_ratio = torch.log_softmax(logits, dim=-1) - reference
        regularized = (reward - PROBLEM.beta * log_ratio).gather(1, arms).view(RUNS, BATCH, 2)
        difference = regularized[..., 0] - regularized[..., 1]
        loss = (difference**2).mean(dim=1).sum() / (2 * PROBLEM.beta)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return logits.detach().numpy()


@pytest.mark.parametrize("shared_draw", [True, False])
def test_torch(per_step, shared_draw):
    pytest.importorskip("torch")
    how = "one draw for all runs" if shared_draw else "a row of draws per run"
    per_step(f"torch autograd, {how}", lambda: torch_loop(shared_draw), STEPS, rounds=3)
    assert_optimal(torch_loop(shared_draw))


def jax_step():
    """One step for all runs, and where it starts from."""
    import jax
    import jax.numpy as jnp

    reward, reference = jnp.array(PROBLEM.reward), jnp.array(PROBLEM.log_reference)
    log_mu = jnp.log(jnp.array(MU))

    def loss(logits, arms):
        log_ratio = jax.nn.log_softmax(logits) - reference
        regularized = (reward - PROBLEM.beta * log_ratio)[arms]
        difference = regularized[:, 0] - regularized[:, 1]
        return (difference**2).mean() / (2 * PROBLEM.beta)

    def step(state, _=None):
        logits, first, second, count, keys = state
        keys, draws = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        arms = jax.vmap(lambda key: jax.random.categorical(key, log_mu, shape=(BATCH, 2)))(draws)
        gradient = jax.vmap(jax.grad(loss))(logits, arms)
        count = count + 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        scale = jnp.sqrt(second / (1 - 0.999**count)) + 1e-8
        logits = logits - LR * first / (1 - 0.9**count) / scale
        return (logits, first, second, count, keys), None

    zeros = jnp.zeros((RUNS, 3))
    keys = jax.random.split(jax.random.key(0), RUNS)
    return step, (jnp.tile(reference, (RUNS, 1)), zeros, zeros, jnp.array(0.0), keys)


@pytest.mark.parametrize("scanned", [False, True])
def test_jax(per_step, scanned):
    jax = pytest.importorskip("jax")
    step, start = jax_step()
    once = jax.jit(lambda state: step(state)[0])
    all_at_once = jax.jit(lambda state: jax.lax.scan(step, state, None, length=STEPS)[0])

    def loop() -> np.ndarray:
        state = start
        if scanned:
            state = all_at_once(state)
        else:
            for _ in range(STEPS):
                state = once(state)
        return np.asarray(jax.block_until_ready(state)[0], dtype=float)

    name = "JAX, all steps in one jitted scan" if scanned else "JAX, one jitted step at a time"
    per_step(name, loop, STEPS, rounds=3)
    assert_optimal(loop())
