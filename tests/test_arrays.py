"""Arrays of torch and JAX: the same numbers as numpy's, handed back in kind, differentiable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from array_api_compat import device
from strategies import make_case

import bandit
from bandit import analysis, arrays, losses, preferences, presets
from bandit.problem import kl_divergence, log_softmax

SHAPES = [(4,), (2, 4)]
CASES = {shape: make_case(np.random.default_rng(3), shape) for shape in SHAPES}
POLICIES = np.random.default_rng(5).normal(size=(3, 2, 4))


def jax_numpy():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    return jax, jax.numpy


def close(found, expected) -> None:
    np.testing.assert_allclose(arrays.to_numpy(found), expected, rtol=1e-10, atol=1e-10)


def data_of(name: str, shape: tuple[int, ...], which: str):
    """Pairs of three kinds, one arm never drawn, and what else the method asks for."""
    case, method = CASES[shape], presets.METHODS[name]
    mu = np.array([0.1, 0.0, 0.5, 0.4])
    nu = {
        "independent": bandit.pairs.independent(mu),
        "two": bandit.pairs.independent(mu, [0.3, 0.3, 0.2, 0.2]),
        "joint": case.nu,
    }[which]
    reads = "preference" in losses.traits(method.loss).requires
    data = {"preference": case.preference if reads else None, "baseline": method.baseline}
    return case.problem, method.loss, nu, data


def logits_of(shape: tuple[int, ...]) -> np.ndarray:
    return POLICIES if len(shape) == 2 else POLICIES[:, 0]


# -------------------------------------------------------------------------------- population


@pytest.mark.parametrize("which", ["independent", "two", "joint"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", presets.METHODS)
def test_population_in_torch_and_its_derivative(name, shape, which):
    problem, loss, nu, data = data_of(name, shape, which)
    expected = analysis.population(problem, loss, logits_of(shape), nu, **data)
    logits = torch.tensor(logits_of(shape), requires_grad=True)
    value, gradient = analysis.population(problem, loss, logits, nu, **data)
    assert isinstance(value, torch.Tensor)
    assert value.dtype == gradient.dtype == torch.float64
    close(value, expected[0])
    close(gradient, expected[1])
    close(torch.autograd.grad(value.sum(), logits)[0], expected[1])


@pytest.mark.parametrize("name", ["copg", "grpo", "importance_sampling"])
def test_population_of_larger_groups_in_torch(name):
    problem, loss, nu, data = data_of(name, (2, 4), "independent")
    expected = analysis.population(problem, loss, POLICIES, nu, group_size=3, **data)
    logits = torch.tensor(POLICIES, requires_grad=True)
    value, gradient = analysis.population(problem, loss, logits, nu, group_size=3, **data)
    close(value, expected[0])
    close(gradient, expected[1])
    close(torch.autograd.grad(value.sum(), logits)[0], expected[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "which"),
    [("grpo", "joint"), ("dpo", "joint"), ("policy_gradient_value", "independent")],
)
def test_population_in_jax_its_derivative_and_under_jit(name, which):
    jax, jnp = jax_numpy()
    problem, loss, nu, data = data_of(name, (2, 4), which)
    expected = analysis.population(problem, loss, POLICIES, nu, **data)

    def population(logits):
        return analysis.population(problem, loss, logits, nu, **data)

    logits = jnp.asarray(POLICIES)
    value, gradient = jax.jit(population)(logits)
    assert isinstance(value, jax.Array)
    close(value, expected[0])
    close(gradient, expected[1])
    close(jax.grad(lambda x: population(x)[0].sum())(logits), expected[1])


def test_dtype_and_device_are_kept():
    problem, loss, nu, data = data_of("copg", (2, 4), "independent")
    where = "cuda" if torch.cuda.is_available() else "cpu"
    logits = torch.tensor(POLICIES, dtype=torch.float32, device=where)
    for result in analysis.population(problem, loss, logits, nu, **data):
        assert result.dtype == torch.float32
        assert device(result) == logits.device
    for name in ("gradient_variance", "covariance"):
        spread = getattr(analysis, name)(problem, loss, logits.double(), nu, **data)
        assert spread.dtype == torch.float64
        assert device(spread) == logits.device
        close(spread, getattr(analysis, name)(problem, loss, logits.double().cpu(), nu, **data))


@pytest.mark.parametrize("name", ["gradient_variance", "covariance"])
def test_results_have_the_same_shape_whatever_the_library(name):
    for shape in SHAPES:
        problem, loss, nu, data = data_of("copg", shape, "independent")
        for logits in (logits_of(shape), logits_of(shape)[0]):
            ours = getattr(analysis, name)(problem, loss, logits, nu, **data)
            theirs = getattr(analysis, name)(problem, loss, torch.tensor(logits), nu, **data)
            assert theirs.shape == np.shape(ours)


def test_views_that_torch_turns_lazily_are_read():
    turned = torch.tensor([1 + 2j, 3 - 1j]).conj()
    np.testing.assert_array_equal(arrays.to_numpy(turned.imag), [-2, 1])
    np.testing.assert_array_equal(arrays.to_numpy(turned), [1 - 2j, 3 + 1j])


def test_libraries_meet():
    jax_numpy = pytest.importorskip("jax.numpy")
    problem = bandit.Bandit([1.0, 0.0], 0.5)
    found = problem.kl(torch.tensor([0.2, 0.8]), jax_numpy.array([0.5, 0.5]))
    assert float(found) == pytest.approx(0.2 * np.log(0.4) + 0.8 * np.log(1.6), rel=1e-6)
    assert isinstance(found, torch.Tensor)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", presets.METHODS)
def test_population_on_cuda(name):
    problem, loss, nu, data = data_of(name, (2, 4), "independent")
    expected = analysis.population(problem, loss, POLICIES, nu, **data)
    logits = torch.tensor(POLICIES, device="cuda")
    for found, known in zip(
        analysis.population(problem, loss, logits, nu, **data), expected, strict=True
    ):
        assert found.is_cuda
        close(found, known)


# --------------------------------------------------------------------- what a problem says


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("quantity", ["expected_reward", "kl", "kl_to_optimal", "objective",
                                      "regret"])  # fmt: skip
def test_values_of_policies_in_torch_and_their_derivatives(quantity, shape):
    problem, logits = CASES[shape].problem, logits_of(shape)
    expected = getattr(problem, quantity)(np.exp(log_softmax(logits)))
    tensor = torch.tensor(logits, requires_grad=True)
    found = getattr(problem, quantity)(torch.softmax(tensor, dim=-1))
    close(found, expected)
    slope = torch.autograd.grad(found.sum(), tensor)[0].numpy()
    step = 1e-5 * np.random.default_rng(0).normal(size=logits.shape)
    up, down = (getattr(problem, quantity)(np.exp(log_softmax(logits + s))) for s in (step, -step))
    axes = tuple(range(1, logits.ndim))
    np.testing.assert_allclose((slope * step).sum(axis=axes), (up - down) / 2, rtol=1e-6)


def test_the_gradient_of_the_objective_is_the_on_policy_gradient_of_copg():
    problem = CASES[(4,)].problem
    logits = torch.tensor(POLICIES[0, 0], requires_grad=True)
    policy = torch.softmax(logits, dim=-1)
    (slope,) = torch.autograd.grad(problem.objective(policy), logits)
    _, gradient = analysis.population(
        problem, losses.copg, logits, bandit.pairs.independent(policy)
    )
    close(-gradient.detach() / 2, slope.numpy())


def test_divergence_between_tensors_and_shapes_that_do_not_fit():
    problem = CASES[(4,)].problem
    policy = torch.softmax(torch.tensor(POLICIES[:, 0]), dim=-1)
    other = policy[0].numpy()
    expected = problem.kl(policy.numpy(), other)
    for mixed in (problem.kl(policy, other), problem.kl(policy, policy[0])):
        assert isinstance(mixed, torch.Tensor)
        close(mixed, expected)
    assert isinstance(problem.kl(policy.numpy(), policy[0]), np.ndarray)
    with pytest.raises(ValueError, match=r"^other: expected shape \(3, 4\) like the policy"):
        problem.kl(policy, policy[:2])
    with pytest.raises(ValueError, match=r"^policy: expected shape \(..., K\) = \(4,\), got \(3,"):
        problem.regret(policy[:, :3])
    with pytest.raises(TypeError, match=r"^policy: expected floating-point numbers, got dtype"):
        problem.regret(torch.ones(4, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"^logits: expected floating-point numbers"):
        analysis.population(problem, losses.copg, torch.arange(4), CASES[(4,)].nu)
    with pytest.raises(TypeError, match=r"^policy: expected None with logits of torch or JAX"):
        analysis.population(
            problem, losses.copg, torch.ones(2), CASES[(4,)].nu, policy=bandit.LogLinear(np.eye(4))
        )


def test_tiny_divergences_keep_their_digits_in_torch():
    log_p = torch.log_softmax(torch.tensor([0.3, -0.2, 1e-9], dtype=torch.float64), dim=-1)
    log_q = torch.log_softmax(torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64), dim=-1)
    assert float(kl_divergence(log_p, log_q)) == pytest.approx(
        float(kl_divergence(log_p.numpy(), log_q.numpy())), rel=1e-12
    )


# ------------------------------------------------------------------------------- at the door


MAKERS = {
    "torch": lambda x: torch.tensor(x, requires_grad=True),
    "parameter": lambda x: torch.nn.Parameter(torch.tensor(x)),
    "jax": lambda x: jax_numpy()[1].asarray(x),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_data_become_numpy_where_they_come_in(make):
    case = CASES[(2, 4)]
    problem = bandit.Bandit(
        make(case.problem.reward),
        case.problem.beta,
        make(case.problem.reference),
        make(case.problem.context_weights),
    )
    assert type(problem.reward) is np.ndarray
    np.testing.assert_array_equal(problem.reward, case.problem.reward)
    nu = bandit.pairs.independent(make(case.mu))
    judge = preferences.check(make(case.preference), problem.shape)
    plain = bandit.pairs.independent(case.mu)
    found = analysis.solve(problem, losses.ipo, nu, preference=judge)
    known = analysis.solve(case.problem, losses.ipo, plain, preference=case.preference)
    np.testing.assert_array_equal(found.policy, known.policy)
    how = {"batch_size": 4, "steps": 5, "optimizer": bandit.SGD(0.1), "rng": 0}
    started = bandit.train(problem, losses.copg, pairs=nu, start=make(case.logits), **how)
    plainly = bandit.train(case.problem, losses.copg, pairs=plain, start=case.logits, **how)
    np.testing.assert_array_equal(started.logits, plainly.logits)


def test_what_comes_in_is_checked_as_ever():
    with pytest.raises(TypeError, match=r"^reward: expected real numbers, got complex ones"):
        bandit.Bandit(torch.tensor([1j, 2.0]), 0.5)
    with pytest.raises(ValueError, match=r"^reward: expected finite numbers, got nan at index"):
        bandit.Bandit(torch.tensor([1.0, float("nan")]), 0.5)
    half = bandit.Bandit(torch.tensor([1.0, 0.5], dtype=torch.bfloat16), 0.5)
    assert half.reward.tolist() == [1.0, 0.5]
