"""Every loss against float64 numpy or closed forms, its gradient against finite differences or formulas."""

import functools

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from flashsr_jax.audio.mel import MEL_FMAX, MEL_FMIN
from flashsr_jax.errors import UserError
from flashsr_jax.models import diffusion
from flashsr_jax.train import losses

RNG = np.random.default_rng(0)
SHAPE = (3, 4, 5, 2)
mel_l1 = jax.jit(lambda x, y: losses.mel_l1(x, y, 64))
multi_scale_mel_l1 = jax.jit(losses.multi_scale_mel_l1)
A, B, C = (RNG.standard_normal(SHAPE).astype(np.float32) for _ in range(3))
AXES = (1, 2, 3)


def with_gradient(function):
    """(function(x, ...), the gradient of its sum by x), in one program."""

    def summed(x, *others):
        of_example = function(x, *others)
        return jnp.sum(of_example), of_example

    return jax.jit(lambda *arguments: jax.grad(summed, has_aux=True)(*arguments)[::-1])


multi_resolution_stft_l1, band_power_l1 = (
    with_gradient(loss) for loss in (losses.multi_resolution_stft_l1, losses.band_power_l1)
)


def check_gradient(function, x, step=1e-3, directions=4):
    """jax.grad of sum(function(x)) against central differences of the same function along random directions."""
    function = with_gradient(function)
    gradient = np.asarray(function(x)[1], np.float64)
    for _ in range(directions):
        direction = (step * (RNG.standard_normal(x.shape) + np.sign(gradient))).astype(np.float32)
        above, below = (np.asarray(function(x + sign * direction)[0], np.float64).sum() for sign in (1, -1))
        assert np.sum(gradient * direction) == pytest.approx((above - below) / 2, rel=2e-2)


def test_weighted_mean_ignores_rejected_examples():
    mean = jax.jit(losses.weighted_mean)
    assert mean(np.array([1.0, 5.0, 3.0]), np.array([1.0, 0.0, 1.0])) == 2.0
    assert mean(np.array([1.0, 5.0, 3.0]), np.zeros(3)) == 0.0


def test_l1_and_l2():
    difference = A.astype(np.float64) - B
    value, gradient = with_gradient(losses.l1)(A, B)
    np.testing.assert_allclose(value, np.abs(difference).mean(AXES), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.sign(difference) / np.prod(SHAPE[1:]), rtol=1e-6)
    value, gradient = with_gradient(losses.l2)(A, B)
    np.testing.assert_allclose(value, (difference**2).mean(AXES), rtol=1e-6)
    np.testing.assert_allclose(gradient, 2 * difference / np.prod(SHAPE[1:]), rtol=1e-5)


def test_the_best_guess_under_the_pinball_loss_is_the_quantile():
    drawn = RNG.standard_normal(2001).astype(np.float32)
    guesses = np.linspace(-2, 2, 401, dtype=np.float32)
    estimate, target = np.broadcast_arrays(guesses[:, None], drawn)
    loss = jax.jit(losses.pinball)
    for quantile in (0.5, 0.6, 0.9):
        best = guesses[np.argmin(loss(estimate, target, quantile))]
        assert best == pytest.approx(np.quantile(drawn, quantile), abs=0.02)


def test_the_pinball_loss_of_the_median_is_l1_and_weighted_as_it_is():
    pinball, l1 = jax.jit(lambda weight: (losses.pinball(A, B, 0.5, weight), losses.l1(A, B, weight)))(np.abs(C))
    np.testing.assert_allclose(pinball, l1, rtol=1e-6)


def test_quantiles_of_bands():
    quantile_Bx1xF = np.asarray(losses.band_quantiles(256, np.array([4000.0, 24_000.0]), 0.6))
    centres = librosa.mel_frequencies(258, fmin=MEL_FMIN, fmax=MEL_FMAX)[1:-1]
    np.testing.assert_allclose(quantile_Bx1xF[0, 0], np.where(centres < 4000, 0.5, 0.6))
    np.testing.assert_array_equal(quantile_Bx1xF[1, 0], 0.5)


def test_losses_are_float32_whatever_the_compute_type():
    half = jax.ShapeDtypeStruct(SHAPE, jnp.bfloat16)
    assert jax.eval_shape(losses.l2, half, half).dtype == jnp.float32


def test_kl_divergence():
    mean, logvar = A.astype(np.float64), B.astype(np.float64)
    expected = (0.5 * (mean**2 + np.exp(logvar) - 1 - logvar)).mean(AXES)
    of_logvar = with_gradient(lambda logvar, mean: losses.kl_divergence(mean, logvar))
    value, gradient = of_logvar(B, A)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(of_logvar(np.zeros_like(B), np.zeros_like(A))[0], np.zeros(3))
    np.testing.assert_allclose(gradient, 0.5 * (np.exp(logvar) - 1) / np.prod(SHAPE[1:]), rtol=1e-4, atol=1e-7)


def test_distribution_matching_pushes_from_the_fake_score_to_the_real_one():
    z_hat, z_real, z_fake = (x.astype(np.float64) for x in (A, B, C))
    weight = 1 / np.abs(z_hat - z_real).mean(AXES, keepdims=True)
    value, gradient = with_gradient(losses.distribution_matching)(A, B, C)
    # The value is half the mean square of the push; the gradient is minus the push: nothing flows into the target.
    push = weight * (z_real - z_fake)
    np.testing.assert_allclose(value, 0.5 * (push**2).mean(AXES), rtol=1e-5)
    np.testing.assert_allclose(gradient, -push / np.prod(SHAPE[1:]), rtol=1e-4, atol=1e-7)


@functools.partial(jax.jit, static_argnums=2)
def both_adversarial(real, fake, kind, weights=None):
    """The generator's loss of `fake`, and the discriminator's."""
    generator = losses.adversarial_generator(fake, kind, weights)
    return generator, losses.adversarial_discriminator(real, fake, kind, weights)


@pytest.mark.parametrize("kind", ["lsgan", "hinge"])
def test_adversarial_losses(kind):
    real, fake = [A, 2 * B], [C, A - 1]
    expected_generator, expected_discriminator = np.zeros(3), np.zeros(3)
    for r, f in zip(real, fake, strict=True):
        r, f = r.astype(np.float64), f.astype(np.float64)
        if kind == "lsgan":
            expected_generator += ((f - 1) ** 2).mean(AXES) / 2
            expected_discriminator += (((r - 1) ** 2).mean(AXES) + (f**2).mean(AXES)) / 2
        else:
            expected_generator += -f.mean(AXES) / 2
            expected_discriminator += (np.maximum(1 - r, 0).mean(AXES) + np.maximum(1 + f, 0).mean(AXES)) / 2
    generator, discriminator = both_adversarial(real, fake, kind)
    np.testing.assert_allclose(generator, expected_generator, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(discriminator, expected_discriminator, rtol=1e-5, atol=1e-6)
    check_gradient(lambda f: losses.adversarial_generator([f], kind), C)
    check_gradient(lambda f: losses.adversarial_discriminator([A], [f], kind), C)


@pytest.mark.parametrize("kind", ["lsgan", "hinge"])
def test_adversarial_losses_count_only_where_a_discriminator_judges(kind):
    judged = np.array([[0, 0, 1, 0.5, 0.25], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]], np.float32)  # nothing of the third
    weight = judged[:, None, :, None]
    full = np.broadcast_to(weight, SHAPE).astype(np.float64)

    def mean(values):
        return (values * full).sum(AXES) / np.maximum(full.sum(AXES), 1.0)

    generator = {"lsgan": lambda f: (f - 1) ** 2, "hinge": lambda f: -f}[kind]
    real_part = {"lsgan": lambda r: (r - 1) ** 2, "hinge": lambda r: np.maximum(1 - r, 0)}[kind]
    fake_part = {"lsgan": lambda f: f**2, "hinge": lambda f: np.maximum(1 + f, 0)}[kind]
    found_generator, found_discriminator = both_adversarial([A, B], [C, A], kind, [weight, np.ones(())])
    expected = mean(generator(C)) + generator(A).mean(AXES)
    np.testing.assert_allclose(found_generator, expected / 2, rtol=1e-5, atol=1e-6)
    expected = mean(real_part(A)) + mean(fake_part(C)) + real_part(B).mean(AXES) + fake_part(A).mean(AXES)
    np.testing.assert_allclose(found_discriminator, expected / 2, rtol=1e-5, atol=1e-6)


def test_feature_matching_leaves_the_real_features_alone():
    expected = (np.abs(A - B).mean(AXES) + np.abs(B - C).mean(AXES) + np.abs(A - C).mean(AXES)) / 3
    of_real = with_gradient(lambda a, b, c: losses.feature_matching([[a, b], [a]], [[B, C], [c]]))
    found, gradient = of_real(A, B, C)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(gradient, np.zeros(SHAPE))
    check_gradient(lambda fake: losses.feature_matching([[A]], [[fake]]), B)


def reference_mel(x, window, hop, pad, bins, fmin):
    """Mel magnitudes by scipy-free float64 numpy, frame by frame."""
    padded = np.pad(x.astype(np.float64), (pad, pad), mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    frames = [np.abs(np.fft.rfft(padded[i : i + window] * hann)) for i in range(0, len(padded) - window + 1, hop)]
    return np.stack(frames) @ librosa.filters.mel(sr=48000, n_fft=window, n_mels=bins, fmin=fmin, fmax=24000).T


def test_mel_l1():
    x, y = (0.1 * RNG.standard_normal((2, 9600)).astype(np.float32) for _ in range(2))
    expected = [
        np.abs(
            np.log(np.maximum(reference_mel(a, 2048, 480, 784, 64, 20), 1e-5))
            - np.log(np.maximum(reference_mel(b, 2048, 480, 784, 64, 20), 1e-5))
        ).mean()
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(mel_l1(x, y), expected, rtol=1e-4)
    np.testing.assert_array_equal(mel_l1(x, x), np.zeros(2))
    check_gradient(lambda x: mel_l1(x, y), x, step=1e-4)


@pytest.mark.training
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_multi_scale_mel_l1():
    x, y = (0.1 * RNG.standard_normal((2, 4800)).astype(np.float32) for _ in range(2))
    expected = np.zeros(2)
    for window in (32, 64, 128, 256, 512, 1024, 2048):
        for i in range(2):
            a, b = (reference_mel(z[i], window, window // 4, window // 2, window * 5 // 32, 0) for z in (x, y))
            expected[i] += np.abs(np.log10(np.maximum(a, 1e-5)) - np.log10(np.maximum(b, 1e-5))).mean()
    np.testing.assert_allclose(multi_scale_mel_l1(x, y), expected, rtol=1e-4)


@pytest.mark.training
@pytest.mark.parametrize("loss", [mel_l1, multi_scale_mel_l1])
def test_spectral_losses_have_finite_gradients_on_silence(loss):
    silence, noise = np.zeros((1, 4800), np.float32), RNG.standard_normal((1, 4800)).astype(np.float32)
    assert np.isfinite(jax.jit(jax.grad(lambda x: jnp.sum(loss(x, noise))))(silence)).all()


def test_mel_errors_above_the_cutoff():
    target = np.zeros((2, 3, 256), np.float32)
    estimate = target.copy()
    centres = librosa.mel_frequencies(258, fmin=20, fmax=24000)[1:-1]
    estimate[:, :, centres < 4000] = 1.0
    errors = jax.jit(losses.mel_errors)(estimate, target, np.array([4000.0, 100.0]))
    below = (centres < 4000).sum()
    np.testing.assert_allclose(errors["mel_l1"], [below / 256] * 2, rtol=1e-6)
    np.testing.assert_allclose(
        errors["mel_l1_hf"], [0.0, ((centres < 4000) & (centres >= 100)).sum() / (centres >= 100).sum()], rtol=1e-6
    )


def test_weights_of_bands():
    """Nothing over the recording's own bandwidth, `high_band` over the cutoff, 1 under it."""
    cutoff_B, bandwidth_B = np.array([4000.0, 8000.0]), np.array([24_000.0, 16_000.0])
    weight = np.asarray(jax.jit(lambda *hz: losses.band_weights(256, *hz, 3.0))(cutoff_B, bandwidth_B))
    centres = librosa.mel_frequencies(258, fmin=20, fmax=24_000)[1:-1]
    assert weight.shape == (2, 1, 256)
    np.testing.assert_array_equal(weight[0, 0], np.where(centres < 4000, 1, 3))
    np.testing.assert_array_equal(weight[1, 0], np.where(centres < 8000, 1, np.where(centres < 16_000, 3, 0)))
    weighted = jax.jit(lambda weight: (losses.l1(A, B, weight), losses.l2(A, B, weight)))
    difference = A.astype(np.float64) - B
    # Equal weights change nothing.
    equal = weight[:, :, :5, None][[0, 1, 0]]
    np.testing.assert_allclose(weighted(equal)[0], np.abs(difference).mean(AXES), rtol=1e-6)
    only_first = np.broadcast_to(np.float32([1, 0, 0, 0, 0])[:, None], equal.shape)
    np.testing.assert_allclose(weighted(only_first)[1], np.square(difference[:, :, :1]).mean(AXES), rtol=1e-6)
    np.testing.assert_array_equal(weighted(np.zeros_like(equal))[0], 0)


def test_weights_of_loudness():
    """The second half of the lower band is 20 dB under the first; the upper band is steady."""
    amplitude = np.ones((1, 8, 6))
    amplitude[:, 4:, :3] = 0.1
    mel = np.log(amplitude).astype(np.float32)
    weights = jax.jit(lambda mel, exponent: losses.loudness_weights(mel, (4, 2), exponent))
    weight = np.asarray(weights(mel, 0.5))
    assert weight.shape == (1, 4, 2, 1)
    loud, quiet = np.array([1.0, np.sqrt(0.1)]) / np.mean([1.0, np.sqrt(0.1)])
    np.testing.assert_allclose(weight[0, :, 0, 0], [loud, loud, quiet, quiet], rtol=1e-5)
    np.testing.assert_allclose(weight[0, :, 1, 0], 1.0, rtol=1e-6)
    np.testing.assert_allclose(weights(mel + np.float32(3.0), 0.5), weight, rtol=1e-5)
    np.testing.assert_array_equal(weights(mel, 0.0), 1.0)


def test_weights_of_timesteps():
    """Of the v-prediction's squared error: `x0` makes it the clean latents', `min_snr` these times their ratio."""
    t = np.array([0, 10, 300, 500, 999])
    table = diffusion.schedule()
    ratio = table.alpha_bar[t] / (1 - table.alpha_bar[t])
    kinds = ("v", "x0", "min_snr")
    weights = jax.jit(lambda t: {kind: losses.level_weights(kind, t, 5.0) for kind in kinds})(t)
    np.testing.assert_array_equal(weights["v"], 1.0)
    np.testing.assert_allclose(weights["x0"], 1 / (ratio + 1), rtol=1e-4)
    np.testing.assert_allclose(weights["min_snr"], np.minimum(ratio, 5) / (ratio + 1), rtol=1e-3)
    z, eps, wrong = A[:, :1], B[:, :1], C[:, :1]

    @jax.jit
    def errors(t_B):
        v_error = losses.l2(wrong, diffusion.velocity(z, t_B, eps))
        z_error = losses.l2(diffusion.z0_from_v(diffusion.q_sample(z, t_B, eps), t_B, wrong), z)
        return losses.level_weights("x0", t_B, 5.0) * v_error, z_error

    t_B = np.array([10, 500, 999])
    np.testing.assert_allclose(*errors(t_B), rtol=1e-3)
    with pytest.raises(UserError, match="config.losses.weighting='snr' is not one of v, x0, min_snr"):
        jax.eval_shape(lambda t_B: losses.level_weights("snr", t_B, 5.0), t_B)


@pytest.mark.training  # librosa.stft compiles for half a minute once a machine
def test_multi_resolution_stft_l1():
    x, y = (RNG.standard_normal((2, 9600)).astype(np.float32) for _ in range(2))
    expected = np.zeros(2)
    for size in (512, 1024, 2048):
        logs = [np.log(np.abs(librosa.stft(s, n_fft=size, hop_length=size // 4, pad_mode="reflect"))) for s in (x, y)]
        expected += np.abs(logs[0] - logs[1]).mean(axis=(1, 2)) / 3
    np.testing.assert_allclose(multi_resolution_stft_l1(x, y)[0], expected, rtol=1e-4)
    np.testing.assert_allclose(multi_resolution_stft_l1(0.5 * x, x)[0], np.log(2), rtol=1e-3)
    assert np.isfinite(multi_resolution_stft_l1(np.zeros_like(x), y)[1]).all()


def test_band_power_l1():
    rng = np.random.default_rng(3)
    x, y = (0.1 * rng.standard_normal((2, 9600)).astype(np.float32) for _ in range(2))

    def log_power(signal, window, bands):
        padded = np.pad(signal.astype(np.float64), window // 2, mode="reflect")
        starts = range(0, len(padded) - window + 1, window // 4)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        power = np.abs(np.fft.rfft([padded[start : start + window] * hann for start in starts])) ** 2
        bank = librosa.filters.mel(sr=48_000, n_fft=window, n_mels=bands, fmin=0.0, fmax=24_000)
        return 0.5 * np.log(np.maximum(power @ bank.T.astype(np.float64), 1e-5))

    expected = [
        np.mean([np.abs(log_power(a, w, n) - log_power(b, w, n)).mean() for w, n in losses.POWER_BANDS.items()])
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(band_power_l1(x, y)[0], expected, rtol=1e-3)
    np.testing.assert_allclose(band_power_l1(0.5 * x, x)[0], np.log(2), rtol=1e-3)
    assert np.isfinite(band_power_l1(np.zeros_like(x), y)[1]).all()


def test_band_power_is_fairer_to_another_noise_than_to_a_softer_one():
    """Two noises of one spectrum are alike in band power; bin by bin they are not."""
    rng = np.random.default_rng(4)
    x, y = (0.1 * rng.standard_normal((2, 9600)).astype(np.float32) for _ in range(2))
    softer = 0.6 * x
    assert (band_power_l1(y, x)[0] < 0.75 * band_power_l1(softer, x)[0]).all()
    assert (multi_resolution_stft_l1(y, x)[0] > multi_resolution_stft_l1(softer, x)[0]).all()
