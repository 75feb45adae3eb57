"""Training configurations small enough to compile and step in seconds: hardly any width, and every structural element
but levels of the U-Net: those of tests/models and the traces of `small` have more than one.

Used as a configuration file by tests that train through the command line: --config tests/helpers/micro.py:STAGE, or
finetune:STAGE for that of configs/finetune.py.
"""

import runpy
from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "configs"


def get_config(name):
    file, _, stage = name.rpartition(":")
    get = runpy.run_path(str(CONFIGS / f"{file or stage}.py"))["get_config"]
    config = get(stage if file else "tiny")
    config.dtype, config.data.workers = "float32", 0
    config.model.vae.update(channels=4, multipliers=(1, 2), mel_bins=32, latent_channels=2, blocks=1)
    config.model.unet.update(channels=8, multipliers=(1,), head_channels=4, latent_channels=2, blocks=1)
    config.model.unet.attention_downsamplings = ()  # the middle still attends
    config.model.vocoder.update(mel_bins=32, channels=8, rates=(24, 20), kernels=(3,), dilations=(3,))
    config.data.window_frames = 32
    config.sharding.min_size = 64
    config.batch_size = 8
    config.steps = 12
    config.log_every = 2
    config.checkpoint.every = 3
    config.eval.update(every=6, clips_per_class=1)
    if stage == "vae":
        config.losses.adversarial_from = 0
        config.discriminator.channels = 8
    if stage == "teacher":
        config.eval.steps = 2
    if stage == "student":
        config.phases = (3, 6, 9)
        config.losses.mel = (0.0, 0.5, 0.5, 0.5)
        config.head.channels = 8
        config.fake_score_updates = 2
        config.teacher_gate_steps = 2
    if stage == "vocoder":
        config.crop_frames = 16
        config.discriminator.update(
            periods=(2,), resolutions=((512, 120),), channels=2, max_channels=8, spectrogram_channels=2
        )
    if stage == "tune":
        config.discriminator_steps = 3
    if stage in ("tune", "student"):
        config.update(decoder_frames=16, crop_frames=8)
        config.discriminator.update(resolutions=((256, 64),), channels=4, periods=(2,), period_channels=2)
    return config
