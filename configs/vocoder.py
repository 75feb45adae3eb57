"""The SR Vocoder, trained on the true mel; vocoder_tuned.py then tunes it on the mel that the VAE decodes.

python -m flashsr_jax.main --config configs/vocoder.py:tiny --workdir runs/vocoder --config.data.dir=DATASET

The paper's comparison, of the mel alone: --config.model.vocoder.lr_conditioned=False

tiny: 3 minutes on 2 CPU cores, validation LSD 1.31 from true mel (demo data).
small: what the shipped vocoder was tuned from. 0.5 hours on one core of an AMD EPYC, validation LSD 0.759 from true mel
(the corpus of launch/data.sh).
base: not trained yet.
"""

from ml_collections import ConfigDict

from flashsr_jax.train.defaults import common, optimizer


def get_config(preset: str) -> ConfigDict:
    config = common("vocoder", preset)
    config.batch_size = {"tiny": 8, "small": 8, "base": 32}[preset]
    config.steps = {"tiny": 300, "small": 2000, "base": 1_000_000}[preset]
    config.crop_frames = {"tiny": 16, "small": 64, "base": 64}[preset]
    config.mel_source = "true"  # or "vae": decoded true latents; "student": decoded one-step latents
    config.init_from = ""  # a vocoder run or weights file to fine-tune
    config.vae_from = ""
    config.student_from = ""
    config.best_metric = "lsd"

    config.mel_loss = "single"  # L1 of the front end's log-mel; "multi_scale": BigVGAN-v2's, with weight 15
    config.losses = {
        "mel": {"tiny": 45.0, "small": 45.0, "base": 45.0}[preset],
        "stft": {"tiny": 0.0, "small": 45.0, "base": 0.0}[preset],  # of linear frequencies, at three resolutions
        "power": 0.0,  # of wide bands, at three resolutions
        "features": 0.0 if preset == "small" else 2.0,
        "adversarial": 0.0 if preset == "small" else 1.0,
    }
    config.discriminator = {
        "periods": (2, 3, 5, 7, 11),
        "resolutions": ((512, 240),) if preset == "tiny" else ((1024, 120), (2048, 240), (512, 50)),
        "channels": {"tiny": 4, "small": 16, "base": 32}[preset],
        "max_channels": {"tiny": 32, "small": 256, "base": 1024}[preset],
        "spectrogram_channels": {"tiny": 4, "small": 16, "base": 32}[preset],
    }
    lr = {"tiny": 1e-3, "small": 4e-4, "base": 1e-4}[preset]
    schedule = dict(betas=(0.8, 0.99), decay=0.999, decay_steps=1000)
    # An inverse STFT exponentiates: without a warm-up and a closer clip it diverges.
    schedule |= dict(clip_norm=100.0, warmup_steps=100) if preset == "small" else dict(clip_norm=500.0)
    config.optimizer = {"vocoder": optimizer(lr, **schedule), "discriminator": optimizer(lr, **schedule)}
    if preset == "small":
        config.data.window_frames = 128  # of which it reads a crop
        config.optimizer.vocoder.decay = 0.95
    if preset == "tiny":
        config.update(TINY)
    return config


TINY = {"checkpoint": {"every": 150}, "eval": {"every": 150}}
