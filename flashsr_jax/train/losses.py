"""Training losses: one function each, returning one value per example (B,), float32.

Letters: B batch, N samples, T time, F frequency or mel bins, C channels.
`weighted_mean` reduces them, so that a rejected example weighs nothing.
"""

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import librosa
import numpy as np
from jax import lax
from librosa.filters import mel as mel_filters

from flashsr_jax.audio import SAMPLE_RATE, front_end
from flashsr_jax.audio.mel import MEL_FMAX, MEL_FMIN
from flashsr_jax.errors import UserError
from flashsr_jax.models.diffusion import amplitudes


def weighted_mean(loss_B: jax.Array, weight_B: jax.Array) -> jax.Array:
    """Mean over the examples whose weight is 1; 0 when there is none."""
    return jnp.sum(loss_B * weight_B) / jnp.maximum(jnp.sum(weight_B), 1.0)


def weighted_sum(
    of_example: dict[str, jax.Array], weights: Mapping[str, Any], weight_B: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(sum of the terms, each times its weight; the terms by name), of losses (B,) by name and examples' weights."""
    terms = {name: weighted_mean(loss_B, weight_B) for name, loss_B in of_example.items()}
    return sum(weights[name] * term for name, term in terms.items()), terms


def _per_example(values: jax.Array, weight: jax.Array | float = 1.0) -> jax.Array:
    """Weighted mean of each example; 0 where all weights are. `weight` broadcasts to the values."""
    axes = tuple(range(1, values.ndim))
    weight = jnp.broadcast_to(weight, values.shape)
    return jnp.sum(values.astype(jnp.float32) * weight, axes) / jnp.maximum(jnp.sum(weight, axes), 1.0)


def _sum(terms: Sequence[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, terms)


def _mean(terms: Sequence[jax.Array]) -> jax.Array:
    return _sum(terms) / len(terms)


def l1(estimate: jax.Array, target: jax.Array, weight: jax.Array | float = 1.0) -> jax.Array:
    """Mean absolute difference of each example, `weight` (see `band_weights`) broadcast to its elements."""
    return _per_example(jnp.abs(estimate.astype(jnp.float32) - target.astype(jnp.float32)), weight)


def pinball(
    estimate: jax.Array, target: jax.Array, quantile: jax.Array | float, weight: jax.Array | float = 1.0
) -> jax.Array:
    """The loss whose best guess is the target's `quantile` (Koenker & Bassett 1978), weighted as `l1`; twice the usual
    scale, so that it is `l1` for 0.5, the median. `quantile` broadcasts to the elements."""
    short = target.astype(jnp.float32) - estimate.astype(jnp.float32)
    return _per_example(2.0 * jnp.maximum(quantile * short, (quantile - 1.0) * short), weight)


def l2(estimate: jax.Array, target: jax.Array, weight: jax.Array | float = 1.0) -> jax.Array:
    """Mean squared difference of each example, weighted as `l1`: the v-prediction and the distillation loss."""
    return _per_example(jnp.square(estimate.astype(jnp.float32) - target.astype(jnp.float32)), weight)


def band_weights(bins: int, cutoff_B: jax.Array, bandwidth_B: jax.Array, high_band: float) -> jax.Array:
    """Weight (B, 1, bins) of each mel bin: 1 under the cutoff in Hz, `high_band` over it, 0 over the recording's own
    bandwidth in Hz: what a codec has taken away is not to be learned."""
    centres_F = mel_centres(bins)
    weight_BxF = jnp.where(centres_F >= cutoff_B[:, None], high_band, 1.0)
    return jnp.where(centres_F < bandwidth_B[:, None], weight_BxF, 0.0)[:, None]


def band_quantiles(bins: int, cutoff_B: jax.Array, quantile: float) -> jax.Array:
    """Quantile (B, 1, bins) for `pinball` of each mel bin: `quantile` over the cutoff in Hz, the median under it,
    where there is little to guess."""
    return jnp.where(mel_centres(bins) >= cutoff_B[:, None], quantile, 0.5)[:, None]


def loudness_weights(mel_BxTxF: jax.Array, grid: tuple[int, ...], exponent: float) -> jax.Array:
    """Weight (B, *grid, 1) of each latent position: the original's mean amplitude under it to the power of `exponent`,
    over the mean of that band. 1 everywhere where the exponent is 0.

    A logarithm's error counts as much in a pause as in a consonant; an ear hears it in the consonant only. Relative to
    the band, since the bands' levels are the input's matter, not the ear's.
    """
    (time, frequency), (frames, bins) = grid, mel_BxTxF.shape[1:]
    patches = jnp.exp(exponent * mel_BxTxF).reshape(-1, time, frames // time, frequency, bins // frequency)
    loudness_BxTxF = patches.mean(axis=(2, 4))
    return (loudness_BxTxF / jnp.mean(loudness_BxTxF, axis=1, keepdims=True))[..., None]


def level_weights(kind: str, t_B: jax.Array, snr_limit: float) -> jax.Array:
    """Weight (B,) of the v-prediction's squared error at timesteps t, whose signal-to-noise ratio is SNR.

    `v`: 1. `x0`: 1 / (SNR + 1), which makes it the squared error of the clean latents (Flow2GAN trains by that,
    arXiv:2512.23278). `min_snr`: min(SNR, `snr_limit`) / (SNR + 1), which counts these by their SNR, up to the limit
    (Hang et al. 2023, arXiv:2303.09556, section 3.4). Raises UserError for another kind.
    """
    alpha, sigma = (x[:, 0, 0, 0] for x in amplitudes(t_B))
    if kind == "v":
        return jnp.ones_like(sigma)
    if kind == "x0":
        return jnp.square(sigma)
    if kind == "min_snr":
        return jnp.minimum(jnp.square(alpha), snr_limit * jnp.square(sigma))
    raise UserError(f"config.losses.weighting={kind!r} is not one of v, x0, min_snr")


@functools.cache
def mel_centres(bins: int) -> np.ndarray:
    """Centre of each mel bin in Hz, float32."""
    return librosa.mel_frequencies(bins + 2, fmin=MEL_FMIN, fmax=MEL_FMAX)[1:-1].astype(np.float32)


def kl_divergence(mean: jax.Array, logvar: jax.Array) -> jax.Array:
    """KL(N(mean, exp(logvar)) || N(0, 1)), mean over the latent's elements (Kingma & Welling 2014, appendix B)."""
    return _per_example(0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar))


def distribution_matching(z_hat: jax.Array, z_real: jax.Array, z_fake: jax.Array) -> jax.Array:
    """A loss whose gradient on z_hat is -w (z_real - z_fake) / elements, w = 1 / mean|z_hat - z_real| per example.

    z_real and z_fake are the clean latents that the teacher and the fake score see in the same noised z_hat.
    DMD (Yin et al. 2024, arXiv:2311.18828), eqs. 7 and 8.
    """
    axes = tuple(range(1, z_hat.ndim))
    weight = 1.0 / jnp.maximum(jnp.mean(jnp.abs(z_hat - z_real), axis=axes, keepdims=True), 1e-5)
    target = lax.stop_gradient(z_hat + weight * (z_real - z_fake))
    return 0.5 * l2(z_hat, target)


def adversarial_generator(
    fake_logits: Sequence[jax.Array], kind: str, weights: Sequence[jax.Array | float] | None = None
) -> jax.Array:
    """Generator loss, mean over the discriminators: `lsgan` (D - 1)^2 (Mao et al. 2017) or `hinge` -D.

    `weights`, one a discriminator, broadcast to its logits: 0 where it does not judge.
    """
    losses = {"lsgan": lambda d: jnp.square(d - 1.0), "hinge": lambda d: -d}
    weights = weights or [1.0] * len(fake_logits)
    return _mean([_per_example(losses[kind](d), w) for d, w in zip(fake_logits, weights, strict=True)])


def adversarial_discriminator(
    real_logits: Sequence[jax.Array],
    fake_logits: Sequence[jax.Array],
    kind: str,
    weights: Sequence[jax.Array | float] | None = None,
) -> jax.Array:
    """Discriminator loss, mean over the discriminators: `lsgan` (D(x) - 1)^2 + D(y)^2, or `hinge`; `weights` as in
    `adversarial_generator`."""
    losses = {
        "lsgan": lambda real, fake: (jnp.square(real - 1.0), jnp.square(fake)),
        "hinge": lambda real, fake: (jax.nn.relu(1.0 - real), jax.nn.relu(1.0 + fake)),
    }
    weights = weights or [1.0] * len(real_logits)
    pairs = (losses[kind](real, fake) for real, fake in zip(real_logits, fake_logits, strict=True))
    return _mean([_per_example(r, w) + _per_example(f, w) for (r, f), w in zip(pairs, weights, strict=True)])


def feature_matching(real: list[list[jax.Array]], fake: list[list[jax.Array]]) -> jax.Array:
    """L1 between the discriminators' inner features, mean over layers and discriminators (Kumar et al. 2019, eq. 2)."""
    pairs = [pair for r, f in zip(real, fake, strict=True) for pair in zip(r, f, strict=True)]
    return _mean([l1(f, lax.stop_gradient(r)) for r, f in pairs])


def mel_l1(estimate_BxN: jax.Array, target_BxN: jax.Array, mel_bins: int) -> jax.Array:
    """L1 of the front end's log-mel, in nat (HiFi-GAN, Kong et al. 2020, eq. 3)."""
    return l1(front_end.log_mel(estimate_BxN, mel_bins), front_end.log_mel(target_BxN, mel_bins))


MULTI_SCALE_WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)


def multi_scale_mel_l1(estimate_BxN: jax.Array, target_BxN: jax.Array) -> jax.Array:
    """L1 of log10-mels summed over seven windows, 32 to 2048 samples, 5 to 320 bins, hop a quarter window.

    The reconstruction loss of BigVGAN-v2 and DAC (Kumar et al. 2023, arXiv:2306.06546, section 3.5).
    """
    windows = MULTI_SCALE_WINDOWS
    return _sum([l1(_log10_mel(estimate_BxN, window), _log10_mel(target_BxN, window)) for window in windows])


def _log10_mel(x_BxN: jax.Array, window: int) -> jax.Array:
    pad = window // 2
    padded = jnp.pad(x_BxN.astype(jnp.float32), ((0, 0), (pad, pad)), mode="reflect")
    magnitude = front_end.magnitude(front_end.stft(padded, window, window // 4))
    return jnp.log10(jnp.maximum(magnitude @ _scale_filterbank(window).T, 1e-5))


STFT_SIZES = (512, 1024, 2048)
STFT_FLOOR = 1e-3  # under it, a magnitude of normalised audio is rounding noise


def multi_resolution_stft_l1(estimate_BxN: jax.Array, target_BxN: jax.Array) -> jax.Array:
    """L1 of natural-log STFT magnitudes, mean over three sizes, 512 to 2048, hop a quarter of each, in nat.

    The log-magnitude part of Parallel WaveGAN's loss (Yamamoto et al. 2020, arXiv:1910.11480, eq. 6). Its frequencies
    are linear: of the front end's mel bins, most lie under 4 kHz.
    """
    return _mean([l1(_log_stft(estimate_BxN, size), _log_stft(target_BxN, size)) for size in STFT_SIZES])


def _log_stft(x_BxN: jax.Array, size: int) -> jax.Array:
    padded = jnp.pad(x_BxN.astype(jnp.float32), ((0, 0), (size // 2, size // 2)), mode="reflect")
    return jnp.log(jnp.maximum(front_end.magnitude(front_end.stft(padded, size, size // 4)), STFT_FLOOR))


POWER_BANDS = {256: 24, 1024: 64, 4096: 96}  # window: mel bands, each of several STFT bins
POWER_FLOOR = 1e-5


def band_power_l1(estimate_BxN: jax.Array, target_BxN: jax.Array) -> jax.Array:
    """L1 of the log of the power in wide mel bands, mean over three window sizes, in nat of amplitude.

    Per bin, the best guess of a noise's log-magnitude lies under its mean power, and a vocoder whose phases do not fit
    from frame to frame loses more of it. A band's power says how loud the sound is whatever its fine structure.
    """
    return _mean(
        [l1(_log_band_power(estimate_BxN, window), _log_band_power(target_BxN, window)) for window in POWER_BANDS]
    )


def _log_band_power(x_BxN: jax.Array, window: int) -> jax.Array:
    padded = jnp.pad(x_BxN.astype(jnp.float32), ((0, 0), (window // 2, window // 2)), mode="reflect")
    spectrum = front_end.stft(padded, window, window // 4)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return 0.5 * jnp.log(jnp.maximum(power @ _power_filterbank(window).T, POWER_FLOOR))


@functools.cache
def _power_filterbank(window: int) -> np.ndarray:
    return _filterbank(POWER_BANDS[window], window)


@functools.cache
def _scale_filterbank(window: int) -> np.ndarray:
    return _filterbank(window * 5 // 32, window)


def _filterbank(bins: int, window: int) -> np.ndarray:
    """librosa's Slaney filterbank from 0 to 24000 Hz, (bins, window // 2 + 1)."""
    with warnings.catch_warnings():  # the finest scales have more mel bins than STFT bins in their lowest octaves
        warnings.simplefilter("ignore", UserWarning)
        return mel_filters(sr=SAMPLE_RATE, n_fft=window, n_mels=bins, fmin=0.0, fmax=MEL_FMAX)


def mel_errors(estimate_BxTxF: jax.Array, target_BxTxF: jax.Array, cutoff_B: jax.Array) -> dict[str, jax.Array]:
    """Mean absolute log-mel difference in nat, over all bins (`mel_l1`) and above each clip's cutoff (`mel_l1_hf`)."""
    above_BxF = (cutoff_B[:, None] <= mel_centres(target_BxTxF.shape[-1])).astype(jnp.float32)
    return {
        "mel_l1": l1(estimate_BxTxF, target_BxTxF),
        "mel_l1_hf": l1(estimate_BxTxF, target_BxTxF, above_BxF[:, None]),
    }
