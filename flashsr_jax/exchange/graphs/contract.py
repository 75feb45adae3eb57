"""What a program that runs the graphs has to know beside them, and the file that it stands in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flashsr_jax
from flashsr_jax.audio import HOP, SAMPLE_RATE
from flashsr_jax.audio.bands import (
    ENOUGH_DB,
    IMAGE,
    LACKING_DB,
    LOWPASS,
    SINC_BETA,
    SINC_PERIODS,
    SPLICE,
    STEEP_SPLICE,
)
from flashsr_jax.audio.front_end import MEL_FLOOR, N_FFT
from flashsr_jax.audio.mel import MEL_FMAX, MEL_FMIN
from flashsr_jax.audio.resampling import BEST, REACH
from flashsr_jax.files import replacing
from flashsr_jax.models.diffusion import STEPS
from flashsr_jax.models.pipeline import phase_noise_shape
from flashsr_jax.models.presets import ModelConfig
from flashsr_jax.upscale.windows import WINDOW_FRAMES, framing

FILE = "model.json"
FORMAT = "flashsr_jax/graphs/1"
PHASE_NOISE = "phase_noise"  # the vocoder's third input, where its phases are dispersed


def write(
    folder: Path, config: ModelConfig, origins: Mapping[str, str], graphs: Mapping[str, Any], **details: Any
) -> Path:
    """Write model.json: the front end, the windows, the noise, and `graphs` with their files, inputs and outputs."""
    path = folder / FILE
    about = {"format": FORMAT, "version": flashsr_jax.__version__, **details, "origins": dict(origins)}
    with replacing(path) as partial:
        partial.write_text(
            json.dumps(about | _contract(config) | {"graphs": graphs}, indent=2) + "\n", encoding="utf-8"
        )
    return path


def _contract(config: ModelConfig) -> dict[str, Any]:
    """Lengths are samples at 48 kHz, or mel frames of `hop` samples where they say so."""
    frames = framing(config, WINDOW_FRAMES)
    stride = config.vae.stride
    phases = phase_noise_shape(config, frames.window)
    of_vocoder = {"phases": {"input": PHASE_NOISE, "index": 2, "values": phases[1]}} if phases else {}
    return {
        "sample_rate": SAMPLE_RATE,
        "hop": HOP,
        "window": {
            "samples": frames.window,
            "frames": WINDOW_FRAMES,
            "context": frames.context,
            "crossfade": frames.crossfade,
            "step": frames.step,
            "frames_multiple_of": config.frame_multiple,
            "shortest_frames": 2 * (frames.context + frames.crossfade) // HOP,
            "edges": "the signal is extended by reflection, `context` samples before its start and after its end",
            "join": "of each window the context is dropped; neighbours are crossfaded by "
            "sin^2(pi / 2 (i + 1/2) / crossfade)",
        },
        "normalisation": {
            "mean": "of each channel's window",
            "peak": "largest |x - mean| of all channels of the window",
            "forward": "0.5 (x - mean) / (peak + 1e-8)",
            "inverse": "2 (peak + 1e-8) y + mean",
            "silence": "a channel without any |x - mean| > 0 stays as it is",
        },
        "resampling": {
            "why": "a file may fill its rate: what a resampler's filter takes is no part of the band",
            "reach": REACH[BEST],
            "shape": "of a file of under 48 kHz, resampled by a filter that has taken 10 dB at reach x half its rate, "
            "the cutoff and the end of the band are that at most",
        },
        "lowpass": {
            "why": "what the input has over the end of its band, hiss or a codec's rests, keeps the high band empty",
            "from": 1.0,
            "to": LOWPASS,
            "shape": "zero-phase gain of the window's bins, 1 up to from x end of the band, 0 from to x end, "
            "0.5 + 0.5 cos(pi position) between",
        },
        "image": {
            "why": "all that the networks have met was resampled to twice the cutoff and back by a filter that leaves "
            "a mirror image over it, and they go by that",
            "filter": "sinc at twice the cutoff, sum 1, Kaiser window",
            "periods": SINC_PERIODS,
            "kaiser_beta": SINC_BETA,
            "shape": "after `lowpass`, of a bin X[k] of the window's spectrum: G[k] (G[k] X[k] + "
            "conj(G[2c - k] X[2c - k])), G the filter's gain, c the cutoff's bin, rounded; X is 0 over 2c and beyond "
            "the spectrum",
            "own": "all of this where X has as little, by energy from bin `from` x c to bin `to` x c, as `lacking_db` "
            "of the second term, X itself from `enough_db` on, linear in dB between",
            "from": IMAGE[0],
            "to": IMAGE[1],
            "lacking_db": LACKING_DB,
            "enough_db": ENOUGH_DB,
        },
        "splice": {
            "why": "under the cutoff the input is better than any estimate of it",
            "from": SPLICE[0],
            "to": SPLICE[1],
            "steep": {"from": STEEP_SPLICE[0], "to": STEEP_SPLICE[1]},
            "shape": "that of `lowpass`, of the cutoff: of the input, and one less of the output; so much of `steep` "
            "as `image` is made, of the input after `lowpass`",
        },
        "mel": {
            "n_fft": N_FFT,
            "window": "hann, periodic",
            "pad": (N_FFT - HOP) // 2,
            "pad_mode": "reflect, both sides",
            "bins": config.vae.mel_bins,
            "fmin_hz": MEL_FMIN,
            "fmax_hz": MEL_FMAX,
            "filters": "triangles of area 1 in Hz, on Slaney's scale",
            "of": "magnitude",
            "floor": MEL_FLOOR,
            "log": "natural",
        },
        "latent": {
            "hop": stride * HOP,
            "frames": WINDOW_FRAMES // stride,
            "bins": config.vae.mel_bins // stride,
            "channels": config.vae.latent_channels,
        },
        "noise": {
            "distribution": "standard normal",
            "timestep": STEPS - 1,
            "inputs": ["posterior_noise", "initial_noise"],
            "anchor": "latent frame j of absolute time, (first sample of the window) / latent hop + index, has the "
            "same noise in every window and channel; j is negative before the signal's start, modulo 2^32",
            "generator": "Threefry-2x32 of 20 rounds (Salmon et al. 2011), words of 32 bits",
            "key": "F(k, (a, b)) is one call: k0 = (0, seed); input i: k1 = F(k0, (0, i)); frame j: k2 = F(k1, (0, j))",
            "bits": "of value i = bin x channels + channel of a frame: the exclusive or of both words of F(k2, (0, i))",
            "uniform": "u = max(l, 2 f + l), f = (bits >> 9) / 2^23, l = -1 + 2^-24, in float32",
            "normal": "sqrt(2) erfinv(u)",
            **of_vocoder,
        },
    }
