"""The systems of an evaluation: the simple baselines, the models, and files that another system has made.

A system is a function of (reference, what it is given of that, seed); the result is (N,) at 48 kHz. It raises
Unmeasurable where it has nothing for the clip. Letters: G windows, C channels, N samples.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio import files as audio_files
from flashsr_jax.audio.formats import SUFFIXES
from flashsr_jax.audio.front_end import denormalise, log_mel, normalisation, normalise
from flashsr_jax.audio.resampling import check_finite, fitted
from flashsr_jax.errors import UserError, reason
from flashsr_jax.evaluate import baselines
from flashsr_jax.evaluate.inputs import Input
from flashsr_jax.evaluate.references import Reference
from flashsr_jax.evaluate.signals import Unmeasurable
from flashsr_jax.models.pipeline import decode, drawn_phase_noise, encode, latent_shape, vocode
from flashsr_jax.models.presets import ModelConfig
from flashsr_jax.upscale.model import Model
from flashsr_jax.upscale.stream import NotFiniteError, upscale
from flashsr_jax.upscale.windows import framing, process_windows


class System(NamedTuple):
    """What it does; `seeded`: whether that depends on the seed; `measured`: whether its speed is of interest."""

    process: Callable[[Reference, Input, int], np.ndarray]
    seeded: bool = False
    measured: bool = False


def unprocessed(reference: Reference, given: Input, seed: int) -> np.ndarray:
    """The input itself."""
    return given.low_N


def mirror(reference: Reference, given: Input, seed: int) -> np.ndarray:
    """`baselines.mirror`."""
    return baselines.mirror(given.low_N, given.end_hz)


def noise(profiles: dict[str, baselines.NoiseProfile]) -> System:
    """`baselines.noise` with the profile of the clip's class. Clips without one are Unmeasurable."""

    def process(reference: Reference, given: Input, seed: int) -> np.ndarray:
        if reference.class_name not in profiles:
            raise Unmeasurable(f"no noise profile for {reference.class_name or 'a clip without a class'}")
        profile = profiles[reference.class_name].at(given.end_hz)
        return baselines.noise(given.low_N, given.end_hz, profile, np.random.default_rng(seed))

    return System(process, seeded=True)


def model(
    loaded: Model, *, guidance: float | Mapping[str, float] = 1.0, keep_low_band: bool = True, **options: Any
) -> System:
    """A model the way a listener runs it: windows, crossfades and all, and the input's own band under the cutoff unless
    `keep_low_band` is not set. `guidance` may be by class; a clip of another class is Unmeasurable. `options` are as
    `upscale` takes them."""

    def process(reference: Reference, given: Input, seed: int) -> np.ndarray:
        scale = guidance if isinstance(guidance, float | int) else guidance.get(reference.class_name)
        if scale is None:
            raise Unmeasurable(f"no guidance for {reference.class_name or 'a clip without a class'}")
        settings = {"seed": seed, "guidance": scale, "bands": given.bands(keep_low_band), **options}
        try:
            y_N = upscale(loaded, given.file_M, given.sample_rate, **settings)
        except NotFiniteError as error:
            raise Unmeasurable(str(error)) from error
        return fitted(y_N, len(reference.audio))

    return System(process, seeded=True, measured=True)


def ceiling(loaded: Model) -> System:
    """VAE and vocoder on the latents of the original: what a perfect diffusion model would reach."""

    def process(reference: Reference, given: Input, seed: int) -> np.ndarray:
        key = jax.random.key(seed)

        def windows(x_Gx2xN: np.ndarray, start_G: np.ndarray) -> np.ndarray:
            return np.asarray(_resynthesise(loaded.params, loaded.config, x_Gx2xN, key))[:, None]

        pair_2xN = np.stack([reference.audio, given.low_N]).astype(np.float32)
        parts = process_windows(windows, [pair_2xN], framing(loaded.config), channels=2, group=1)
        return np.concatenate(list(parts), axis=1)[0]

    return System(process, seeded=True)


@functools.partial(jax.jit, static_argnames="config")
def _resynthesise(params: dict, config: ModelConfig, x_Gx2xN: jax.Array, key: jax.Array) -> jax.Array:
    hr, lr = x_Gx2xN[:, 0], x_Gx2xN[:, 1]
    stats = normalisation(lr)
    mel = log_mel(normalise(hr, stats), config.vae.mel_bins)
    eps = jax.random.normal(key, (len(hr), *latent_shape(config, hr.shape[-1])))
    phase_noise = drawn_phase_noise(config, jax.random.fold_in(key, 1), hr.shape)
    z = encode(params["vae"], config, mel, eps, params["scale_factor"])
    decoded = decode(params["vae"], config, z, params["scale_factor"])
    return denormalise(vocode(params["vocoder"], config, decoded, normalise(lr, stats), phase_noise=phase_noise), stats)


def outputs(name: str, folder: str) -> System:
    """Files of another system: FOLDER/CUTOFF/CLIP.wav (CUTOFF in Hz), or FOLDER/CLIP.wav for any cutoff; CLIP is the
    original's name. Raises UserError where the folder is none."""
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{name}={folder}: no such folder", "outputs")

    def process(reference: Reference, given: Input, seed: int) -> np.ndarray:
        stems = (root / f"{given.cutoff_hz:g}" / reference.name, root / reference.name)
        found = next((p for stem in stems for suffix in SUFFIXES if (p := Path(f"{stem}{suffix}")).is_file()), None)
        if found is None:
            raise Unmeasurable(f"no file {stems[0]}.wav or {stems[1]}.wav")
        try:
            y_CxN, sample_rate = audio_files.read(found)
            check_finite(y_CxN, 0)
        except Exception as error:
            raise Unmeasurable(f"{found}: {reason(error)}") from error
        if sample_rate != SAMPLE_RATE:
            raise Unmeasurable(f"{found} has {sample_rate} Hz, not {SAMPLE_RATE} Hz")
        if y_CxN.shape != (1, len(given.low_N)):
            raise Unmeasurable(
                f"{found} has {y_CxN.shape[1]} samples x {y_CxN.shape[0]} channels, not {len(given.low_N)} x 1"
            )
        return y_CxN[0]

    return System(process)
