"""Fine-tuning: every stage from published weights (or `small`, the model that comes along) instead of from nothing.

flashsr weights import student_ldm.pth sr_vocoder.pth vae.pth -o official.safetensors
python -m flashsr_jax.main --config configs/finetune.py:STAGE --workdir runs/STAGE --config.data.dir=DATASET

vocoder     the vocoder on decoded mel, which is what it meets at inference
vae         the decoder alone: latents stay as they are, and so the published student goes on fitting
regression  the student's U-Net by L1 alone: needs no teacher
teacher     a teacher that begins as the published student, as no teacher is published
student     the student by all losses, with --config.teacher_from=runs/teacher
tune        all three networks together, the student among them

STAGE,small begins with the model that comes along; other weights: --config.init_from, vae_from, vocoder_from.
Rates and steps are a start, not tuned: a fifth of the rate that the network was trained with, at the published size
also a tenth of the steps. No run of that size has been made.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from flashsr_jax.errors import UserError

WEIGHTS = {"base": "official.safetensors", "small": "small"}


def get_config(arguments: str) -> ConfigDict:
    stage, _, preset = arguments.partition(",")
    preset = preset or "base"
    if stage not in CHANGES or preset not in WEIGHTS:
        raise UserError(
            f"configs/finetune.py:{arguments or '(nothing)'}: choose a stage of {', '.join(CHANGES)}, "
            f"and after a comma {' or '.join(WEIGHTS)}"
        )
    file = "vocoder_tuned" if stage == "vocoder" else stage
    config = runpy.run_path(str(Path(__file__).parent / f"{file}.py"))["get_config"](preset)
    for source in ("init_from", "vae_from", "vocoder_from"):
        if source in config:
            config[source] = WEIGHTS[preset]
    if preset == "base":
        config.optimizer[stage].warmup_steps = 1000
    if stage not in ("student", "tune"):  # whose own rate and steps already are those of trained networks
        config.optimizer[stage].lr *= 0.2
        if preset == "base":
            config.steps //= 10
    config.update(CHANGES[stage])
    return config


CHANGES = {
    "vocoder": {},
    "vae": {"train_encoder": False, "losses": {"adversarial_from": 5000}},
    "regression": {},
    "teacher": {},
    # Begins as a one-step model: most steps start where it is used, at pure noise, and all losses count at once.
    "student": {
        "losses": {"adversarial": (0.1,) * 4, "dmd": (0.3,) * 4},
        "start_modes": ((0.7, 0.1, 0.1, 0.1),) * 4,
        "optimizer": {"head": {"lr": 5e-5}},
    },
    "tune": {},
}
