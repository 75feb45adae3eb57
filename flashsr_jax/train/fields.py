"""Fields of a configuration: whether all are there, and numbers within what a run can do with them."""

import fnmatch
import math
from collections.abc import Mapping

from ml_collections import ConfigDict

from flashsr_jax.errors import UserError
from flashsr_jax.runs.folder import flattened

MANY = 10**9
# (least, most) of whole numbers; a pattern stands for all fields that it fits, and a tuple for each of its numbers.
COUNTS: Mapping[str, tuple[int, int]] = {
    "steps": (1, MANY),
    "batch_size": (1, MANY),
    "seed": (0, 2**32 - 1),
    "log_every": (1, MANY),
    "max_skipped_steps": (0, MANY),
    "checkpoint.*": (1, MANY),
    "eval.every": (1, MANY),
    "eval.clips_per_class": (1, MANY),
    "eval.steps": (1, 1000),
    "data.workers": (0, 1024),
    "data.window_frames": (1, MANY),
    "data.max_corrupt_records": (0, MANY),
    "optimizer.*.warmup_steps": (0, MANY),
    "optimizer.*.decay_steps": (1, MANY),
    "optimizer.*.updates": (0, MANY),
    "sharding.min_size": (0, 2**62),
    "phases": (0, MANY),
    "teacher_steps": (1, 1000),
    "fake_score_updates": (1, MANY),
    "discriminator_steps": (0, MANY),
    "decoder_frames": (1, MANY),
    "crop_frames": (1, MANY),
    "losses.adversarial_from": (0, MANY),
    "head.channels": (1, MANY),
    "discriminator.*channels": (1, MANY),
}
# The same of numbers with a fraction.
NUMBERS: Mapping[str, tuple[float, float]] = {
    "ema_decay": (0.0, 1.0),
    "condition_drop": (0.0, 1.0),
    "low_resolution_fraction": (0.0, 1.0),
    "losses.mel_quantile": (0.0, 1.0),
    "data.*_probability": (0.0, 1.0),
    "data.class_weights.*": (0.0, 1e9),
    "data.cutoff_hz": (100.0, 24_000.0),
    "eval.cutoff_hz": (100.0, 24_000.0),
    "optimizer.*.lr": (0.0, math.inf),
    "optimizer.*.betas": (0.0, 1.0),
    "optimizer.*.weight_decay": (0.0, math.inf),
    "optimizer.*.decay": (0.0, 1.0),
    "optimizer.*.final": (0.0, 1.0),
    "optimizer.*.cooldown": (0.0, 1.0),
    "optimizer.*.clip_norm": (0.0, math.inf),
}
NAMED = 5  # of the fields that are missing


def check(config: ConfigDict, known: ConfigDict, source: str) -> None:
    """Raises UserError, in terms of `source`, where `config` lacks a field of `known`, another configuration of its
    stage, or has a value where that has fields; and for numbers that are out of range."""
    fields, needed = config.to_dict(), known.to_dict()
    flat = flattened(fields)
    missing = sorted(flattened(needed).keys() - flat.keys())
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise UserError(f"{source} has no {', '.join(missing[:NAMED])}{more}, which stage {config.stage} needs")
    mixture = fields["data"].get("mixture", {})
    if any(
        isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf
        for weight in mixture.values()
    ):
        raise UserError(f"config.data.mixture={mixture}: give each folder a weight, a number over 0")
    for table, kind, word in ((COUNTS, int, "whole number"), (NUMBERS, (int, float), "number")):
        for pattern, (least, most) in table.items():
            for name in fnmatch.filter(flat, pattern):
                value = flat[name]
                for each in value if isinstance(value, tuple) else (value,):
                    if isinstance(each, bool) or not isinstance(each, kind) or not least <= each <= most:
                        bounds = f"from {least} to {most}" if most not in (MANY, math.inf) else f"of {least} or more"
                        raise UserError(f"config.{name}={value}: give a {word} {bounds}")
