"""The one-step student. Needs the VAE and the teacher.

python -m flashsr_jax.main --config configs/student.py:tiny --workdir runs/student --config.data.dir=DATASET \
    --config.vae_from=runs/vae --config.teacher_from=runs/teacher

A student that starts from a regression (--config.init_from=runs/regression) has a gate before it: the teacher, sampled,
has to be better than that on the validation clips, by Zimtohrli where config.eval.perceptual is on, else by LSD.

The paper's ablations: --config.losses.adversarial=0,0,0,0 --config.losses.dmd=0,0,0,0, or only the latter.

tiny: 3 minutes on 2 CPU cores, validation mel_l1 1.37 nat, LSD 1.60 (demo data).
small: as it was tried, from the regression (--config.init_from) and the teacher: best at step 100, and no better than
the regression, which is shipped: on 8 validation clips a class at 4 kHz, LSD 1.46 against 1.41 (speech), 1.37 against
1.36 (music), 1.34 against 1.34 (effects), docs/trials.md. By each set of losses: docs/ablation.md.
base: not trained yet.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from flashsr_jax.train.defaults import SMALL_UNET_DATA, common, optimizer


def get_config(preset: str) -> ConfigDict:
    config = common("student", preset)
    config.batch_size = {"tiny": 8, "small": 6, "base": 64}[preset]
    config.vae_from = ""
    config.data.latents = ""  # folders of windows that were encoded before, instead of config.data.dir's
    config.teacher_from = ""
    config.init_from = ""  # a U-Net to start from instead of the teacher, which has to be better on validation clips
    config.teacher_gate = True  # False: learn from it even if it is not
    config.teacher_gate_steps = {"tiny": 8, "small": 50, "base": 50}[preset]  # by so many solver steps
    config.vocoder_from = ""
    config.best_metric = {"tiny": "mel_l1", "small": "zimtohrli", "base": "mel_l1"}[preset]

    phase_steps = {"tiny": 30, "small": 125, "base": 5000}[preset]
    config.steps = 4 * phase_steps
    config.phases = (phase_steps, 2 * phase_steps, 3 * phase_steps)  # where one phase of the weights below ends
    config.losses = {
        "distill": (1.0, 1.0, 1.0, 1.0),
        "distill_mel": (0.0,) * 4,  # the same on the decoded log-mel
        "adversarial": (0.0, 0.1, 0.2, 0.3),
        "dmd": (0.0, 0.3, 0.5, 0.7),
        "waveform": (0.0,) * 4,  # adversarial on the waveform, as in tune.py; needs config.vocoder_from
        "features": (0.0,) * 4,  # of the same discriminators
        "mel": {"tiny": (0.0,) * 4, "small": (0.5,) * 4, "base": (0.0,) * 4}[preset],
        "zimtohrli": (0.0,) * 4,  # what the metrics hear of that mel: a distance, and points lost
        "visqol": (0.0,) * 4,
        "high_band": {"tiny": 1.0, "small": 3.0, "base": 1.0}[preset],  # weight of latents and mel over the cutoff
    }
    config.teacher_steps = {"tiny": 4, "small": 8, "base": 32}[preset]
    scales = {"tiny": (1.0, 1.5), "small": (1.0, 1.5), "base": (3.0, 13.0)}[preset]
    config.guidance = {"speech": scales, "music": scales, "effects": scales}
    config.start_modes = {
        "tiny": ((0.7, 0.1, 0.1, 0.1),) * 4,
        "small": ((0.7, 0.1, 0.1, 0.1),) * 4,
        # Flash Diffusion's defaults: easy starts first, pure noise last.
        "base": ((0.0, 0.0, 0.5, 0.5), (0.1, 0.3, 0.3, 0.3), (0.25, 0.25, 0.25, 0.25), (0.4, 0.2, 0.2, 0.2)),
    }[preset]
    config.adversarial_kind = "lsgan"  # or "hinge"
    config.adversarial_timesteps = (10, 250, 500, 750)
    config.head = {"channels": {"tiny": 32, "small": 64, "base": 256}[preset]}
    tune = runpy.run_path(str(Path(__file__).parent / "tune.py"))["get_config"](preset)
    config.update({name: tune[name] for name in ("decoder_frames", "crop_frames", "discriminator")})  # of "waveform"
    config.dmd_timesteps = (20, 980)
    config.fake_score = "student"  # the student itself (Flash Diffusion), or "separate", its own U-Net (DMD2)
    config.fake_score_updates = 5  # per student update, for "separate"

    lr = {"tiny": 3e-4, "small": 5e-5, "base": 1e-5}[preset]
    config.optimizer = {"student": optimizer(lr), "head": optimizer(lr), "fake_score": optimizer(lr)}
    config.optimizer.discriminator = tune.optimizer.discriminator
    if preset == "small":
        config.data.update(SMALL_UNET_DATA)
        config.eval.perceptual = True
    if preset == "tiny":
        config.update(TINY)
    return config


TINY = {"checkpoint": {"every": 60}, "eval": {"every": 60}}
