"""Schedule, conversions, guidance and solver against their definitions in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashsr_jax.models import diffusion, flops

from helpers import GOLDEN

GOLDEN = np.load(GOLDEN / "schedule.npz")
RNG = np.random.default_rng(1)
SHAPE = (2, 4, 3, 2)


def test_schedule_is_the_published_one():
    table = diffusion.schedule()
    np.testing.assert_allclose(table.beta, GOLDEN["betas"], rtol=1e-6)
    np.testing.assert_allclose(table.alpha_bar, GOLDEN["alphas_cumprod"], rtol=1e-6)


def test_v_and_z0_are_inverse_of_each_other():
    z0, eps = (RNG.standard_normal(SHAPE).astype(np.float32) for _ in range(2))

    @jax.jit
    def there_and_back(t):
        z_t = diffusion.q_sample(z0, t, eps)
        return z_t, diffusion.z0_from_v(z_t, t, diffusion.velocity(z0, t, eps))

    np.testing.assert_allclose(there_and_back(np.array([10, 900]))[1], z0, atol=1e-5)
    np.testing.assert_allclose(there_and_back(np.array([999, 999]))[0], eps, atol=5e-4)


def test_guidance_matches_two_separate_evaluations():
    z, cond = (RNG.standard_normal(SHAPE).astype(np.float32) for _ in range(2))
    t, scale = np.array([5, 500]), np.array([3.0, 1.0]).reshape(2, 1, 1, 1)

    def apply(z, cond, t):
        return z * cond + t[:, None, None, None]

    conditional, unconditional = apply(z, cond, t), apply(z, np.full_like(cond, diffusion.UNCONDITIONAL), t)
    expected = unconditional + scale * (conditional - unconditional)
    guided = jax.jit(lambda *given: diffusion.guided_v(apply, *given))
    np.testing.assert_allclose(guided(z, cond, t, scale), expected, rtol=1e-5)


def test_solver_grid_is_trailing_spaced():
    np.testing.assert_array_equal(diffusion.solver_grid(4).timesteps, [999, 749, 499, 249])
    np.testing.assert_array_equal(diffusion.solver_grid(1).timesteps, [999])
    assert len(diffusion.solver_grid(32).timesteps) == 32
    with pytest.raises(ValueError, match="between 1 and 1000"):
        diffusion.solver_grid(0)


def solve_by_definition(x0_of, z, timesteps):
    """DPM-Solver++(2M) as architecture and paper write it, in float64, one step after the other."""
    table = diffusion.schedule()
    alphas, sigmas = table.alpha[timesteps], table.sigma[timesteps]
    lambdas = np.log(alphas / sigmas)
    previous = None
    for k, t in enumerate(timesteps[:-1]):
        x0 = x0_of(z, t)
        h = lambdas[k + 1] - lambdas[k]
        data = x0
        if k > 0:
            r0 = (lambdas[k] - lambdas[k - 1]) / h
            data = x0 + (x0 - previous) / (2 * r0)
        z = sigmas[k + 1] / sigmas[k] * z - alphas[k + 1] * np.expm1(-h) * data
        previous = x0
    return x0_of(z, timesteps[-1])


@pytest.mark.parametrize("start", [0, 3, 7])
def test_solve_from_a_traced_start(start):
    """From any start the first step is of first order again, as if the grid began there."""
    z = RNG.standard_normal(SHAPE).astype(np.float32)
    grid = diffusion.solver_grid(8)

    def x0_of(z, t):
        return np.tanh(z) * 0.7 + t / 3000

    def predict_v(z, t_B):
        alpha, sigma = diffusion.amplitudes(t_B)
        x0 = jnp.tanh(z) * 0.7 + t_B[:, None, None, None] / 3000
        return (alpha * z - x0) / sigma

    solve = jax.jit(lambda z, start: diffusion.solve(predict_v, z, grid, start))
    expected = solve_by_definition(x0_of, z.astype(np.float64), grid.timesteps[start:])
    np.testing.assert_allclose(solve(z, jnp.int32(start)), expected, atol=2e-5)


def test_one_program_serves_every_start_and_skips_the_steps_before_it():
    calls = []

    def predict_v(z, t_B):
        jax.debug.callback(lambda t: calls.append(int(t)), t_B[0])
        return z

    solve = jax.jit(lambda z, start: diffusion.solve(predict_v, z, diffusion.solver_grid(8), start))
    for start in (0, 5):
        jax.block_until_ready(solve(jnp.ones(SHAPE), jnp.int32(start)))
    jax.effects_barrier()
    assert solve._cache_size() == 1
    np.testing.assert_array_equal(calls, [*diffusion.solver_grid(8).timesteps, *diffusion.solver_grid(8).timesteps[5:]])


def test_flops_of_a_solve_need_its_trip_count():
    def solve(z, start):
        return diffusion.solve(lambda z, t: z @ jnp.ones((2, 2)), z, diffusion.solver_grid(8), start)

    with pytest.raises(ValueError, match="while_trips"):
        flops.count(solve, jnp.ones(SHAPE), jnp.int32(0))
    assert flops.count(solve, jnp.ones(SHAPE), jnp.int32(0), while_trips=3) == 3 * 2 * 2 * np.prod(SHAPE)


def test_consistency_boundary_is_the_identity_at_zero():
    skip, out = jax.jit(diffusion.consistency_scalings)(np.array([0, 999]))
    np.testing.assert_allclose(skip[:, 0, 0, 0], [1.0, 0.25 / (9990.0**2 + 0.25)], rtol=1e-5)
    np.testing.assert_allclose(out[:, 0, 0, 0], [0.0, 1.0], atol=1e-6)
