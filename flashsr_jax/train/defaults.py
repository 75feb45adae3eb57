"""What the configurations of all stages have in common; `configs/*.py` set the rest."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from flashsr_jax.errors import UserError
from flashsr_jax.models.presets import PRESETS

# Frames of 10 ms in a training window; a multiple of each preset's `frame_multiple`.
WINDOW_FRAMES = {"tiny": 128, "small": 256, "base": 512}
# What the U-Net of `small` sees: low cutoffs as often as high ones, more speech, which is the hardest, the bright of it
# more often, and less of it under music; and every other input as it is met. Of the runs that docs/small
# describes, only regression_quantile had `bright` and `floor_probability`.
SMALL_UNET_DATA = {
    "class_weights": {"speech": 2.0},
    "bright": (-30.0, -20.0),
    "mix_probability": 0.25,
    "log_cutoff": True,
    "floor_probability": 0.5,
}
# Fields that earlier versions did not have, with the values that mean what they did: of every
# stage, of some, and of every optimizer.
ADDED: dict[str, Any] = {
    "accumulate": 1,
    "data": {"mixture": {}, "bright": (), "floor_probability": 0.0},
    "writers": "tensorboard",
}
ADDED_TO_STAGE: dict[str, dict[str, Any]] = {
    "regression": {
        "losses": {"mel_quantile": 0.5, "zimtohrli": 0.0, "visqol": 0.0, "keep": 1.0},
        "keep_from": "",
        "keep_over_hz": 0.0,
    },
    "teacher": {"losses": {"weighting": "v", "snr_limit": 5.0, "loudness": 0.0}, "timestep_power": 1.0},
    "student": {
        "teacher_gate": False,
        "teacher_gate_steps": 50,
        "losses": dict.fromkeys(("distill_mel", "zimtohrli", "visqol", "waveform", "features"), (0.0,) * 4),
    },
}
ADDED_TO_OPTIMIZERS = {"schedule": "exponential", "updates": 0, "final": 0.0, "cooldown": 0.2}


def common(stage: str, preset: str) -> ConfigDict:
    """Model, data, mesh, logging and evaluation of `stage` at the size `preset`; every field is a leaf to override.

    Raises UserError for a preset that does not exist.
    """
    if preset not in PRESETS:
        raise UserError(f"configs/{stage}.py:{preset or '(nothing)'}: choose a preset: {', '.join(PRESETS)}")
    return ConfigDict(
        {
            "stage": stage,
            "seed": 0,
            "dtype": "bfloat16" if preset == "base" else "float32",  # of the computation; parameters are float32
            "accumulate": 1,  # parts of a batch whose gradients are computed one after the other, where memory is short
            "remat": "none",  # or "products", "blocks": what the backward pass computes again (models/layers.py)
            "model": dataclasses.asdict(PRESETS[preset]),
            "data": {
                "dir": "data",
                "mixture": {},  # instead of dir: {dir: weight} of several datasets, drawn from by their weights
                "class_weights": {"speech": 1.0, "music": 1.0, "effects": 1.0},
                "bright": (),  # dB: speech that is brighter than each is drawn once more (data/brightness.py)
                "window_frames": WINDOW_FRAMES[preset],
                "cutoff_hz": (2000.0, 16_000.0),
                "log_cutoff": False,  # True: its logarithm is uniform
                "order": (2, 10),
                "gain_db": (-12.0, 6.0),
                "mix_probability": 0.5,
                "floor_probability": 0.0,  # of an input with 16 bits' rounding, hiss or a codec's (audio/as_met.py)
                "lr_simulation": "device",  # or "exact": scipy in the worker processes
                "workers": 8 if preset == "base" else 0,
                "max_corrupt_records": 10,  # that cannot be read, and are left out; one more stops the run
            },
            "mesh": {"data": -1, "fsdp": 1},
            "sharding": {"rules": (), "min_size": 2**16},
            "ema_decay": {"tiny": 0.99, "small": 0.999, "base": 0.9999}[preset],
            "max_skipped_steps": 0,  # whose losses or gradients are not finite; one more stops the run
            "writers": "tensorboard",  # and, after commas, wandb or MODULE:NAME of your own (train/writers.py)
            "log_every": {"tiny": 25, "small": 100, "base": 50}[preset],
            "checkpoint": {"every": 500 if preset == "small" else 1000, "keep_last": 2},
            "eval": {
                "every": 1000 if preset == "small" else 5000,
                "clips_per_class": 8 if preset == "small" else 2,
                "cutoff_hz": 4000.0,
                "perceptual": False,
            },
        },
        allow_dotted_keys=True,  # folders of data.mixture
    )


def optimizer(lr: float, **changes: Any) -> dict:
    """The section of a role: AdamW at a constant rate after warm-up, unless `changes` say otherwise."""
    return {
        "kind": "adamw",  # or "muon"; the rest means the same
        "lr": lr,
        "betas": (0.9, 0.999),
        "weight_decay": 0.01,
        "warmup_steps": 0,
        "schedule": "exponential",  # or "cosine", or "wsd": warm-up, stable, decay (train/optimisers.py)
        "decay": 1.0,  # "exponential": factor on the rate ...
        "decay_steps": 1000,  # ... per this many steps after the warm-up
        "updates": 0,  # the others: of the whole schedule; 0: as many as the run has steps
        "final": 0.0,  # the others: factor on the rate at its end
        "cooldown": 0.2,  # "wsd": share of the updates in which the rate falls
        "clip_norm": 1.0,
    } | changes
