"""How well a stage does on fixed held-out clips during training, in numbers, sound and pictures.

Letters: B batch, N samples, T mel frames, F mel bins.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from flashsr_jax.audio import HOP
from flashsr_jax.audio.front_end import denormalise, log_mel
from flashsr_jax.audio.pictures import mel_image, spectrogram_image
from flashsr_jax.data import CLASSES
from flashsr_jax.data.clips import Clip, fixed_clips
from flashsr_jax.devices import sharding
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.metrics import MAIN_METRICS, PERCEPTUAL
from flashsr_jax.evaluate.protocol import Output, measure
from flashsr_jax.evaluate.references import wall
from flashsr_jax.models.pipeline import drawn_phase_noise, restored_mel, sample_latent, vocode
from flashsr_jax.train import losses
from flashsr_jax.train.batch import Windows, prepare
from flashsr_jax.train.frozen import dtype_of, encode_pair, model_of
from flashsr_jax.train.logs import Logs


class ClipSet(NamedTuple):
    """Fixed held-out clips, and the same as a global batch, filled up to the number of devices."""

    clips: list[Clip]
    batch: dict

    @classmethod
    def load(cls, config: ConfigDict, mesh: Mesh) -> "ClipSet":
        """`eval.clips_per_class` validation windows of each class, low-passed at `eval.cutoff_hz`."""
        clips = fixed_clips(
            config.data,
            "validation",
            count_per_class=config.eval.clips_per_class,
            window_samples=config.data.window_frames * HOP,
            cutoff_hz=config.eval.cutoff_hz,
        )
        filled = [clips[i % len(clips)] for i in range(-(-len(clips) // mesh.size) * mesh.size)]
        batch = {
            "hr": np.stack([clip.hr for clip in filled]),
            "lr": np.stack([clip.lr for clip in filled]),
            "cutoff_hz": np.full(len(filled), config.eval.cutoff_hz, np.float32),
            "class_id": np.array([CLASSES.index(clip.class_name) for clip in filled], np.int32),
        }
        # Every process has all clips: placed by their index, they keep their order on any mesh.
        split = NamedSharding(mesh, sharding.BATCH_SPEC)
        return cls(clips, sharding.place(batch, jax.tree.map(lambda _: split, batch)))


def mel_outputs(
    config: ConfigDict, frozen: dict[str, Any], windows: Windows, mel_BxTxF: jax.Array, cutoff_B: jax.Array
) -> dict[str, Any]:
    """What `eval_step` of a stage that makes mels returns: `metrics` (B,) each, `mels` (B, 3, T, F) of input, output
    and original, and, where the configuration names a vocoder, `audio` (B, N) at the input's level."""
    model = model_of(config)
    mel_lr, mel_hr = (log_mel(x, model.vae.mel_bins) for x in (windows.lr, windows.hr))
    outputs = {
        "metrics": losses.mel_errors(mel_BxTxF, mel_hr, cutoff_B),
        "mels": jnp.stack([mel_lr, mel_BxTxF, mel_hr], axis=1),
    }
    if "vocoder" in frozen:
        phase_noise = drawn_phase_noise(model, jax.random.key(0), windows.lr.shape)
        waveform = vocode(frozen["vocoder"], model, mel_BxTxF, windows.lr, dtype_of(config), phase_noise)
        outputs["audio"] = denormalise(waveform, windows.stats)
    return outputs


class Sampled(NamedTuple):
    """Scaled latents of clips, and the noise that their super-resolution began with; all of one shape."""

    hr: jax.Array
    lr: jax.Array
    noise: jax.Array


def unet_outputs(
    config: ConfigDict,
    unet: dict,
    frozen: dict[str, Any],
    batch: dict[str, Any],
    key: jax.Array,
    steps: int = 1,
    guidance: jax.Array | float = 1.0,
) -> tuple[dict[str, Any], Sampled]:
    """What `eval_step` of a stage that trains a U-Net returns: clips super-resolved as `models.pipeline` does it.

    `unet` are the U-Net's parameters. The metrics of `mel_outputs`, and `latent_l1`.
    """
    key_encode, key_noise = jax.random.split(key)
    model, dtype = model_of(config), dtype_of(config)
    windows, _ = prepare(batch)
    z0, z_lr = encode_pair(config, frozen, windows, key_encode)
    noise = jax.random.normal(key_noise, z0.shape)
    z_hat = sample_latent(unet, model, z_lr, noise, steps, guidance, dtype)
    mel = restored_mel(frozen["vae"], model, z_hat, frozen["scale_factor"], dtype)
    outputs = mel_outputs(config, frozen, windows, mel, batch["cutoff_hz"])
    outputs["metrics"]["latent_l1"] = losses.l1(z_hat, z0)
    return outputs, Sampled(z0, z_lr, noise)


def check_best_metric(config: ConfigDict, outputs: dict[str, Any]) -> None:
    """Raises UserError where no evaluation will measure config.best_metric; `outputs` are those of the stage's
    `eval_step`, which may be shapes. At a run's start, as its first evaluation comes hours after."""
    scores = dict.fromkeys(outputs["metrics"])
    if "audio" in outputs:
        scores |= {name: None for name in MAIN_METRICS if config.eval.perceptual or name not in PERCEPTUAL}
    if config.best_metric not in scores:
        how = ", or set config.eval.perceptual=True" if "audio" in outputs and config.best_metric in PERCEPTUAL else ""
        raise UserError(
            f"config.best_metric={config.best_metric} is not measured: give one of {', '.join(scores)}{how}"
        )


def evaluate(
    config: ConfigDict,
    program: Callable[..., dict],
    weights: dict,
    frozen: dict[str, Any],
    clips: ClipSet,
    key: jax.Array,
    logs: Logs,
    step: int,
) -> dict[str, float]:
    """Mean scores over the clips; their pictures and, where the stage makes any, their audio go to the logs.

    Audio is measured as `flashsr evaluate` does, with its perceptual metrics where `eval.perceptual` asks for them. The
    noise is the same at every evaluation.
    """
    outputs = outputs_of(program, weights, frozen, clips, key)
    scores = {name: float(np.mean(values)) for name, values in outputs["metrics"].items()}
    if "audio" in outputs:
        scores |= audio_scores(config, clips, outputs["audio"])
    for index, clip in enumerate(clips.clips):
        audio = outputs["audio"][index] if "audio" in outputs else None
        logs.clip(step, clip.name, _picture(clip, outputs["mels"][index], audio), audio)
    logs.evaluation(step, scores)
    return scores


def outputs_of(
    program: Callable[..., dict], weights: dict, frozen: dict[str, Any], clips: ClipSet, key: jax.Array
) -> dict[str, Any]:
    """What a stage's `eval_step` makes of the clips, as numpy arrays, in every process. The noise is that of `key`."""
    outputs = program(weights, frozen, clips.batch, jax.random.fold_in(key, 0))
    if not all(x.is_fully_addressable for x in jax.tree.leaves(outputs)):
        outputs = multihost_utils.process_allgather(outputs, tiled=True)
    return jax.tree.map(lambda x: np.asarray(x)[: len(clips.clips)], outputs)


def audio_scores(config: ConfigDict, clips: ClipSet, audio_BxN: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean of each of `MAIN_METRICS` over the clips, measured as `flashsr evaluate` does. Raises FloatingPointError
    where one cannot be."""
    measured = []
    for clip, audio in zip(clips.clips, audio_BxN, strict=True):
        output = Output("", config.eval.cutoff_hz, 0, audio)
        measured.append(measure(clip.hr, wall(clip.bandwidth_hz), [output], config.eval.perceptual)[1])
    if problems := [result.problem for result in measured if result.problem]:
        raise FloatingPointError(f"evaluation: {len(problems)} of {len(measured)} clips failed: {problems[0]}")
    values = {name: [m.metrics[name] for m in measured if name in m.metrics] for name in MAIN_METRICS}
    return {name: float(np.mean(of_clips)) for name, of_clips in values.items() if of_clips}


def _picture(clip: Clip, mels_3xTxF: np.ndarray, audio: np.ndarray | None) -> np.ndarray:
    """Input, output and original side by side: spectrograms where there is audio, else mels."""
    if audio is None:
        return np.concatenate([mel_image(mel) for mel in mels_3xTxF], axis=1)
    return np.concatenate([spectrogram_image(x) for x in (clip.lr, audio, clip.hr)], axis=1)
