"""A step of sampled training against what others would write, and how it grows.

CoPG with Adam on three arms, 128 pairs a step, drawn off-policy. The rivals do the same with what
their libraries are made for: pairs drawn one by one, gradients by automatic differentiation, runs
as a leading axis, in float32 (``bandit`` computes in float64); torch on one thread, JAX on as many
as it likes. The loop goes through the pairs one by one in Python, as code for teaching often does.
Times include setting up and leave compiling out. Every contender has to arrive at the optimum.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from timing import Contender

import bandit
from bandit import losses, presets

BATCH, LR, STEPS = 128, 0.01, 400
PROBLEM = presets.three_armed_bandit()
MU = presets.three_armed_behavior()


def our_loop(runs: int, batch_size: int = BATCH, steps: int = STEPS, **options) -> np.ndarray:
    history = bandit.train(
        options.pop("problem", PROBLEM),
        losses.copg,
        pairs=bandit.pairs.independent(options.pop("mu", MU)),
        batch_size=batch_size,
        steps=steps,
        optimizer=bandit.Adam(LR),
        runs=runs,
        rng=0,
        record_every=steps,
        **options,
    )
    return history.logits[-1]


def torch_loop(runs: int, shared_draw: bool = False, steps: int = STEPS) -> np.ndarray:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    reward = torch.tensor(PROBLEM.reward, dtype=torch.float32)
    reference = torch.tensor(PROBLEM.log_reference, dtype=torch.float32)
    mu = torch.tensor(MU, dtype=torch.float32)
    logits = reference.repeat(runs, 1).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=LR)
    for _ in range(steps):
        if shared_draw:
            arms = torch.multinomial(mu, runs * BATCH * 2, replacement=True).view(runs, -1)
        else:
            arms = torch.multinomial(mu.expand(runs, -1), BATCH * 2, replacement=True)
        log_ratio = torch.log_softmax(logits, dim=-1) - reference
        regularized = (reward - PROBLEM.beta * log_ratio).gather(1, arms).view(runs, BATCH, 2)
        difference = regularized[..., 0] - regularized[..., 1]
        loss = (difference**2).mean(dim=1).sum() / (2 * PROBLEM.beta)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return logits.detach().numpy()


def python_loop(runs: int, steps: int = STEPS) -> np.ndarray:
    """Run after run, step after step, pair after pair."""
    rng = np.random.default_rng(0)
    log_reference, beta = np.log(PROBLEM.reference), PROBLEM.beta
    found = []
    for _ in range(runs):
        logits = log_reference.copy()
        first, second = np.zeros(3), np.zeros(3)
        for step in range(1, steps + 1):
            policy = np.exp(logits) / np.exp(logits).sum()
            gradient = np.zeros(3)
            for _ in range(BATCH):
                one, two = rng.choice(3, p=MU), rng.choice(3, p=MU)
                regularized = PROBLEM.reward - beta * (np.log(policy) - log_reference)
                difference = regularized[one] - regularized[two]
                gradient[one] -= difference / BATCH
                gradient[two] += difference / BATCH
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            scale = np.sqrt(second / (1 - 0.999**step)) + 1e-8
            logits = logits - LR * first / (1 - 0.9**step) / scale
        found.append(logits)
    return np.array(found)


def jax_loop(runs: int, scanned: bool):
    """A function that makes all steps, compiled once."""
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

    zeros = jnp.zeros((runs, 3))
    keys = jax.random.split(jax.random.key(0), runs)
    start = (jnp.tile(reference, (runs, 1)), zeros, zeros, jnp.array(0.0), keys)
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

    return loop


def installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


@pytest.mark.parametrize("runs", [1, 100])
def test_a_step_against_others(runs, compare):
    whole = {"bandit.train": functools.partial(our_loop, runs)}
    if installed("jax"):
        whole["JAX, all steps in one jitted scan"] = jax_loop(runs, scanned=True)
        whole["JAX, one jitted step at a time"] = jax_loop(runs, scanned=False)
    if installed("torch"):
        whole["torch autograd"] = functools.partial(torch_loop, runs)
        if runs > 1:
            shared = functools.partial(torch_loop, runs, shared_draw=True)
            whole["torch autograd, one call draws for all runs"] = shared
    contenders = {name: Contender(loop, STEPS) for name, loop in whole.items()}
    name = "pair after pair in Python"
    whole[name] = functools.partial(python_loop, 1)
    few = 40 if runs == 1 else 1
    contenders[name] = Contender(functools.partial(python_loop, runs, few), few)
    title = f"A step of training, {_many(runs, 'run')}: CoPG with Adam, 128 pairs"
    compare(title, contenders)
    for name, loop in whole.items():
        logits = loop()
        policy = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
        error = np.abs(policy.mean(axis=0) - PROBLEM.optimal_policy()).max()
        assert error < (0.02 if len(policy) > 1 else 0.1), name


# ------------------------------------------------------------------------------------- growth


def stepping(steps: int, **options) -> Contender:
    return Contender(functools.partial(our_loop, steps=steps, **options), steps)


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}" + "s" * (n != 1)


def test_growth_with_runs(grow, quick):
    sizes = [1, 10, 100] if quick else [1, 10, 100, 1000, 10_000]
    grow("A step by runs", {_many(n, "run"): stepping(200, runs=n) for n in sizes})


def test_growth_with_batch(grow, quick):
    sizes = [10, 1000] if quick else [10, 100, 1000, 10**4, 10**5, 10**6]
    title = "A step by batch, 100 runs"
    grow(title, {f"{n:,} pairs": stepping(200, runs=100, batch_size=n) for n in sizes})


def test_growth_with_group(grow, quick):
    sizes = [2, 4] if quick else [2, 4, 8, 16, 32]
    title = "A step by group size, 100 runs, 128 groups"
    grow(title, {f"{n} arms a group": stepping(100, runs=100, group_size=n) for n in sizes})


def large(contexts: int | None, arms: int) -> dict[str, object]:
    """A problem and a behavior, both uneven."""
    rng = np.random.default_rng(0)
    shape = (arms,) if contexts is None else (contexts, arms)
    reference, mu = rng.dirichlet(np.ones(arms), size=(2, *shape[:-1])) * 0.9 + 0.1 / arms
    return {"problem": bandit.Bandit(rng.gamma(2.0, size=shape), 0.4, reference), "mu": mu}


def test_growth_with_arms(grow, quick):
    sizes = [3, 30, 300] if quick else [3, 30, 300, 3000, 30_000]
    title = "A step by arms K, 10 runs"
    grow(title, {f"{n:,} arms": stepping(200, runs=10, **large(None, n)) for n in sizes})


def test_growth_with_contexts(grow, quick):
    sizes = [1, 10, 100] if quick else [1, 10, 100, 1000, 10_000]
    title = "A step by contexts X of 5 arms, 10 runs"
    grow(title, {_many(n, "context"): stepping(200, runs=10, **large(n, 5)) for n in sizes})
