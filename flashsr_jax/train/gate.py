"""Whether a teacher is worth learning from: sampled, it has to beat the network that its student would start from.

A student cannot be better than a teacher that is worse than where it starts. Both are measured once, before the first
step, on the validation clips of the run's own evaluations, beside the noise baseline. What was measured stays in the
run's folder (`GATE_FILE`), its log and its metrics.
"""

import functools
import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from flashsr_jax.devices.runtime import compiler_options
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate import baselines
from flashsr_jax.evaluate.profiles import load_profiles
from flashsr_jax.files import replacing
from flashsr_jax.runs.folder import GATE_FILE, gate_text, read_gate
from flashsr_jax.train.evaluation import ClipSet, audio_scores, outputs_of, unet_outputs
from flashsr_jax.train.logs import Logs
from flashsr_jax.train.stages import student

LOGGER = logging.getLogger(__name__)
METRICS = ("zimtohrli", "lsd")  # what decides: the first of them that is measured. Of both, lower is better


def applies(config: ConfigDict) -> bool:
    """Whether the run is a student's that starts from another network than its teacher."""
    return config.stage == "student" and bool(config.init_from)


def check(
    config: ConfigDict,
    evaluate: jax.stages.Wrapped,
    frozen: dict[str, Any],
    networks: dict[str, str],
    clips: ClipSet,
    key: jax.Array,
    logs: Logs,
    workdir: Path,
) -> None:
    """Measure the teacher, `config.init_from` and the noise baseline, unless the run's folder has it, and say it.

    `evaluate` is the student's compiled evaluation, `networks` are the frozen networks' fingerprints. Raises UserError
    where the teacher is not better, unless config.teacher_gate is False, and where there is no vocoder to hear it.
    """
    if "vocoder" not in frozen:
        if not config.teacher_gate:
            return
        raise UserError(
            f"config.teacher_from={config.teacher_from} is to be heard beside config.init_from first: set "
            "config.vocoder_from, or config.teacher_gate=False"
        )
    settings = {
        "steps": config.teacher_gate_steps,
        "guidance": json.loads(config.guidance.to_json()),
        "clips": {name: config.eval[name] for name in ("clips_per_class", "cutoff_hz", "perceptual")},
        "seed": config.seed,
        "networks": networks,
    }
    gate = read_gate(workdir)
    if gate.get("settings") != settings:
        gate = {**_measured(config, evaluate, frozen, clips, key), "settings": settings}
        logs.gate(gate["scores"])
        if jax.process_index() == 0:
            with replacing(workdir / GATE_FILE) as partial:
                partial.write_text(json.dumps(gate, indent=2) + "\n")
    LOGGER.info("teacher of %d steps, by %s: %s", config.teacher_gate_steps, gate["metric"], gate_text(gate))
    if gate["margin"] > 0:
        return
    said = (
        f"config.teacher_from={config.teacher_from} does not beat config.init_from={config.init_from}: "
        f"{gate['metric']} is worse by {abs(gate['margin']):.4g} ({gate_text(gate)})"
    )
    if config.teacher_gate:
        raise UserError(f"{said}; train the teacher on, or set config.teacher_gate=False")
    LOGGER.warning("%s; it is learned from all the same", said)


def _measured(
    config: ConfigDict, evaluate: jax.stages.Wrapped, frozen: dict[str, Any], clips: ClipSet, key: jax.Array
) -> dict[str, Any]:
    """`metric` that decides, `scores` by system, and `margin` by which the teacher is better."""

    def score(audio_BxN: list[np.ndarray]) -> dict[str, float]:
        return audio_scores(config, clips, audio_BxN)

    LOGGER.info("the teacher of %d steps on %d clips", config.teacher_gate_steps, len(clips.clips))
    options = compiler_options(jax.default_backend())
    sample = jax.jit(functools.partial(_sample_teacher, config), compiler_options=options)
    start = {"student": frozen["init"]}
    scores = {
        "teacher": score(outputs_of(sample, {}, frozen, clips, key)["audio"]),
        "init_from": score(outputs_of(evaluate, start, frozen, clips, key)["audio"]),
        "noise": score(_noise(config, clips)),
    }
    metric = next(name for name in METRICS if name in scores["teacher"])
    return {"metric": metric, "margin": scores["init_from"][metric] - scores["teacher"][metric], "scores": scores}


def _sample_teacher(
    config: ConfigDict, weights: dict, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> dict[str, Any]:
    """Clips as in the student's `eval_step`, by `teacher_gate_steps` solver steps of the teacher, guided by the mean of
    the scales that it is learned from with. `weights` are not used."""
    low, high = student.guidance(config, batch["class_id"])
    steps = config.teacher_gate_steps
    return unet_outputs(config, frozen["teacher"], frozen, batch, key, steps, (low + high) / 2)[0]


def _noise(config: ConfigDict, clips: ClipSet) -> list[np.ndarray]:
    """The clips with noise of their class over the cutoff."""
    cutoff_hz, profiles = config.eval.cutoff_hz, load_profiles()
    return [
        baselines.noise(clip.lr, cutoff_hz, profiles[clip.class_name].at(cutoff_hz), np.random.default_rng(0))
        for clip in clips.clips
    ]
