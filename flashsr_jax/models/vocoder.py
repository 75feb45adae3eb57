"""The SR Vocoder: BigVGAN's generator conditioned on the low-resolution waveform.

Letters: B batch, T mel frames, F mel bins, N = 480 T samples, M samples at a stage's rate, C channels, K STFT bins.
Source: FlashSR (Im & Nam, arXiv:2501.10807), section III; BigVGAN (Lee et al., ICLR 2023, arXiv:2206.04658); for the
inverse STFT instead of the last stages, iSTFTNet (Kaneko et al., ICASSP 2022, arXiv:2203.02395).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flashsr_jax.audio.front_end import istft, stft
from flashsr_jax.models.antialias import antialiased_snake_beta
from flashsr_jax.models.layers import Dtype, rematerialised
from flashsr_jax.models.presets import VocoderConfig

KERNEL = 7  # of the first and the last convolutions
LOG_MAGNITUDE_MEAN = -3.0  # about that of the high band of normalised audio
LOG_MAGNITUDE_MAX = 5.0  # no frame of normalised audio is louder
COVERED = 10.0
NEIGHBOURS = (3, 5)  # frames and bins: single bins of a noise fall far under its mean
POWER_FLOOR = 1e-12
LEAK = 0.1  # slope of the leaky ReLU
PHASE_BINS = 8  # neighbours whose phases are turned alike: attacks stay within 3 ms
DISPERSED_GAIN = 1.28  # measured: the level is as before on validation clips at 4 kHz, within 1 dB from 4.5 to 16 kHz
# Residual branches start small, so that the sum of nine of them a stage keeps its scale.
RESIDUAL_INIT = nn.initializers.variance_scaling(0.04, "fan_in", "normal")


class WeightNormConv(nn.Module):
    """1-D convolution, kernel = g v / |v| with |v| over all but the output channel (Salimans & Kingma, 2016)."""

    channels: int
    kernel: int
    dilation: int = 1
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxMxC: jax.Array) -> jax.Array:
        kernel, bias = _weight_norm(self, (self.kernel, x_BxMxC.shape[-1], self.channels), norm_axes=(0, 1))
        pad = self.dilation * (self.kernel - 1) // 2
        y_BxMxC = lax.conv_general_dilated(
            x_BxMxC, kernel, (1,), ((pad, pad),), rhs_dilation=(self.dilation,), dimension_numbers=("NWC", "WIO", "NWC")
        )
        return y_BxMxC + bias


class WeightNormUpsample(nn.Module):
    """Transposed 1-D convolution of stride `rate`, even, and kernel 2 rate; |v| is per *input* channel, as in torch.

    Each sample adds its 2 `rate` products onto the output: one matrix product and an overlap-add. XLA's transposed
    convolution takes as long forward, but the gradient of its kernel twenty times as long on a CPU.
    """

    channels: int
    rate: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxMxC: jax.Array) -> jax.Array:
        batch, samples, in_channels = x_BxMxC.shape
        kernel, bias = _weight_norm(self, (2 * self.rate, in_channels, self.channels), norm_axes=(0, 2))
        kernel = kernel.transpose(1, 0, 2).reshape(in_channels, -1)
        early, late = jnp.split(x_BxMxC @ kernel, 2, axis=-1)
        y = jnp.pad(early, ((0, 0), (0, 1), (0, 0))) + jnp.pad(late, ((0, 0), (1, 0), (0, 0)))
        y_BxMxC = y.reshape(batch, (samples + 1) * self.rate, self.channels)
        return y_BxMxC[:, self.rate // 2 : -self.rate // 2] + bias


def _weight_norm(
    module: nn.Module, shape: tuple[int, int, int], norm_axes: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """Kernel and bias of `module` in its compute type, from its parameters v, g and bias, or kernel and bias."""
    if module.has_variable("params", "kernel"):  # of `fold_weight_norm`
        kernel, bias = (module.get_variable("params", name) for name in ("kernel", "bias"))
        return kernel.astype(module.dtype), bias.astype(module.dtype)
    v = module.param("v", module.kernel_init, shape)
    norm = jnp.sqrt(jnp.sum(jnp.square(v), norm_axes, keepdims=True))
    g = module.param("g", lambda _: norm.reshape(-1))
    bias = module.param("bias", nn.initializers.zeros, shape[-1:])
    return (v * (g.reshape(norm.shape) / norm)).astype(module.dtype), bias.astype(module.dtype)


def fold_weight_norm(params: dict) -> dict:
    """A vocoder's parameters for inference: each v and g replaced by the kernel that they make, which a program would
    otherwise hold beside them.

    In NumPy, since JAX would compile a program for every shape, of a megabyte each; `jnp.asarray` does so, too.
    """
    folded = {}
    for name, value in params.items():
        if not isinstance(value, dict):
            folded[name] = value
        elif {"v", "g"} <= value.keys():
            v, g = np.asarray(value["v"]), np.asarray(value["g"])
            axes = (0, 1) if g.size == v.shape[2] else (0, 2)  # a transposed one halves the channels
            norm = np.sqrt(np.sum(np.square(v), axes, keepdims=True))
            folded[name] = {"kernel": jax.device_put(v * (g.reshape(norm.shape) / norm)), "bias": value["bias"]}
        else:
            folded[name] = fold_weight_norm(value)
    return folded


class SnakeBeta(nn.Module):
    """Anti-aliased SnakeBeta with its two parameters a channel, on a log scale."""

    @nn.compact
    def __call__(self, x_BxMxC: jax.Array) -> jax.Array:
        alpha = self.param("alpha", nn.initializers.zeros, x_BxMxC.shape[-1:])
        beta = self.param("beta", nn.initializers.zeros, x_BxMxC.shape[-1:])
        return antialiased_snake_beta(x_BxMxC, alpha, beta)


class AMPBlock(nn.Module):
    """Anti-aliased multi-periodicity block: per dilation, [activation, dilated conv, activation, conv], residual."""

    kernel: int
    dilations: tuple[int, ...]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxMxC: jax.Array) -> jax.Array:
        channels = x_BxMxC.shape[-1]
        for i, dilation in enumerate(self.dilations):
            h = SnakeBeta(name=f"activation1_{i}")(x_BxMxC)
            h = WeightNormConv(channels, self.kernel, dilation, dtype=self.dtype, name=f"conv1_{i}")(h)
            h = SnakeBeta(name=f"activation2_{i}")(h)
            conv2 = WeightNormConv(
                channels, self.kernel, kernel_init=RESIDUAL_INIT, dtype=self.dtype, name=f"conv2_{i}"
            )
            x_BxMxC += conv2(h)
        return x_BxMxC


class LRBranch(nn.Module):
    """Features of the low-resolution waveform at the rate of each upsampling stage, the coarsest first."""

    config: VocoderConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, lr_BxN: jax.Array) -> list[jax.Array]:
        rates = self.config.rates
        channels, hop = self.config.channels >> len(rates), self.config.stage_hop
        kernel = max(KERNEL, self.config.istft_size)
        padding = (kernel - hop) // 2
        conv_in = nn.Conv(channels, (kernel,), hop, ((padding, padding),), dtype=self.dtype, name="conv_in")
        h = conv_in(lr_BxN[..., None])
        features = [h]
        for index, rate in enumerate(reversed(rates[1:])):
            channels *= 2
            around = ((rate - 1, rate - 1),)
            h = nn.Conv(channels, (2 * rate,), rate, around, dtype=self.dtype, name=f"downsample_{index}")(h)
            h = nn.leaky_relu(h, LEAK)
            features.append(h)
        return features[::-1]


def missing(log_magnitude_BxMxK: jax.Array, lr_BxN: jax.Array) -> jax.Array:
    """Share (B, M, K) of each bin that the low-resolution waveform lacks.

    1/2 where its power, a mean over the bin's neighbours, is `COVERED` times under that of the magnitudes; 1/100 where
    it equals that, 0.99 where it is 20 dB under.

    A network that has to know by itself where the low band ends gives up the octaves that it is seldom asked for: at a
    cutoff of 2 kHz it lost 28 dB over it.
    """
    size = 2 * (log_magnitude_BxMxK.shape[-1] - 1)
    edge = size // 2 - size // 8  # frame m is centred on sample (m + 1/2) hop, as those of `istft`
    spectrum = stft(jnp.pad(lr_BxN.astype(jnp.float32), ((0, 0), (edge, edge))), size, size // 4)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    power = jnp.pad(power, ((0, 0), *((n // 2, n // 2) for n in NEIGHBOURS)), mode="edge")
    power = nn.avg_pool(power[..., None], NEIGHBOURS)[..., 0]
    return nn.sigmoid(2 * (2 * log_magnitude_BxMxK - jnp.log(COVERED * power + POWER_FLOOR)))


def phase_groups(config: VocoderConfig) -> int:
    """How many groups of `PHASE_BINS` the bins of a frame of the inverse STFT are, the last one smaller."""
    return -(-(config.istft_size // 2 + 1) // PHASE_BINS)


def dispersed(phase_BxMxK: jax.Array, noise_BxMxG: jax.Array) -> jax.Array:
    """Phases, those of each frame and group of bins turned by half a turn times standard normal noise.

    Of a mel without fine structure a vocoder makes the same waveform in every frame: what it adds is a buzz with lines
    at multiples of the mel's frame rate, 100 Hz. A high band is mostly noise, and random phases make it one (perceptual
    noise substitution, Herre & Schulz 1998, AES preprint 4720).
    """
    turns_BxMxK = jnp.repeat(noise_BxMxG, PHASE_BINS, axis=-1)[..., : phase_BxMxK.shape[-1]]
    return phase_BxMxK + jnp.pi * turns_BxMxK


class SRVocoder(nn.Module):
    """Waveform from a log-mel spectrogram and the normalised low-resolution waveform, which carries the low band.

    With an inverse STFT, what the network makes is added to the low-resolution waveform in the bins that `missing`
    finds empty there. Where the configuration has no `lr_conditioned`, it is a vocoder of the mel alone, and the
    waveform is not used.
    """

    config: VocoderConfig
    dtype: Dtype = jnp.float32
    remat: str = "none"  # of each AMP block: `layers.rematerialised`

    @nn.compact
    def __call__(self, mel_BxTxF: jax.Array, lr_BxN: jax.Array, phase_noise: jax.Array | None = None) -> jax.Array:
        """Log-mel (B, T, F) and waveform (B, N), N = T x `config.hop` -> waveform (B, N), float32.

        `phase_noise`, standard normal, disperses the phases of the inverse STFT: for each of its frames
        `phase_groups(config)` values, however they are shaped beside B; None: the network's own phases. Raises
        ValueError where the lengths do not fit.
        """
        config = self.config
        samples = mel_BxTxF.shape[1] * config.hop
        if lr_BxN.shape[1] != samples or mel_BxTxF.shape[2] != config.mel_bins:
            raise ValueError(
                f"SR Vocoder: mel {mel_BxTxF.shape} and waveform {lr_BxN.shape}; it needs {config.mel_bins} mel bins "
                f"and {config.hop} samples a mel frame"
            )
        block_of = rematerialised(AMPBlock, self.remat)
        if config.lr_conditioned:
            lr_features = LRBranch(config, self.dtype, name="lr_branch")(lr_BxN.astype(self.dtype))
        h = ((mel_BxTxF - config.mel_mean) / config.mel_std).astype(self.dtype)
        h = WeightNormConv(config.channels, KERNEL, dtype=self.dtype, name="conv_pre")(h)
        for stage, rate in enumerate(config.rates):
            channels = config.channels >> (stage + 1)
            h = WeightNormUpsample(channels, rate, dtype=self.dtype, name=f"upsample_{stage}")(h)
            if config.lr_conditioned:
                h = h + lr_features[stage]
            h = sum(
                block_of(kernel, config.dilations, self.dtype, name=f"stage_{stage}_block_{index}")(h)
                for index, kernel in enumerate(config.kernels)
            ) / len(config.kernels)
        h = SnakeBeta(name="activation_post")(h)
        if config.istft_size:
            h_BxMx2K = WeightNormConv(config.istft_size + 2, KERNEL, dtype=self.dtype, name="conv_post")(h)
            log_magnitude, phase = jnp.split(h_BxMx2K.astype(jnp.float32), 2, axis=-1)
            log_magnitude = jnp.minimum(log_magnitude + LOG_MAGNITUDE_MEAN, LOG_MAGNITUDE_MAX)
            magnitude = jnp.exp(log_magnitude)
            if phase_noise is not None:
                phase = dispersed(phase, phase_noise.reshape(*phase.shape[:2], phase_groups(config)))
                magnitude *= DISPERSED_GAIN
            if config.lr_conditioned:
                magnitude *= missing(log_magnitude, lr_BxN)
            waveform_BxN = istft(magnitude * lax.complex(jnp.cos(phase), jnp.sin(phase)))
            return lr_BxN + waveform_BxN if config.lr_conditioned else waveform_BxN
        h_BxNx1 = WeightNormConv(1, KERNEL, dtype=self.dtype, name="conv_post")(h)
        return jnp.tanh(h_BxNx1[..., 0].astype(jnp.float32))
