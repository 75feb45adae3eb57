"""The mel autoencoder.

python -m flashsr_jax.main --config configs/vae.py:tiny --workdir runs/vae --config.data.dir=DATASET

tiny: 3 minutes on 2 CPU cores, validation mel_l1 0.92 nat (demo data).
small: the shipped model's. 1.4 hours on one core of an AMD EPYC, validation mel_l1 0.29 nat (the corpus of
launch/data.sh).
base: not trained yet.
"""

from ml_collections import ConfigDict

from flashsr_jax.train.defaults import common, optimizer


def get_config(preset: str) -> ConfigDict:
    config = common("vae", preset)
    config.batch_size = {"tiny": 4, "small": 4, "base": 64}[preset]
    config.steps = {"tiny": 250, "small": 4500, "base": 400_000}[preset]
    config.init_from = ""  # a VAE to start from
    config.train_encoder = True  # False: latents and their scale stay, and U-Nets trained on them go on fitting
    config.vocoder_from = ""  # a vocoder run or weights file: evaluation then renders and scores audio
    config.best_metric = "mel_l1"

    config.low_resolution_fraction = 0.3  # of the examples show the encoder the low-resolution mel
    config.losses = {
        "distance": "l1",
        "kl": 1e-3,  # on the mean over elements
        "adversarial": {"tiny": 0.02, "small": 0.0, "base": 0.5}[preset],
        "adversarial_from": {"tiny": 125, "small": 0, "base": 50_000}[preset],
    }
    config.discriminator = {"channels": {"tiny": 8, "small": 32, "base": 64}[preset]}
    lr = {"tiny": 2e-3, "small": 1e-3, "base": 1e-4}[preset]
    config.optimizer = {
        "vae": optimizer(
            lr,
            warmup_steps={"tiny": 50, "small": 300, "base": 5000}[preset],
            decay={"tiny": 1.0, "small": 0.604, "base": 1.0}[preset],
        ),
        "discriminator": optimizer(lr, betas=(0.5, 0.9)),
    }
    if preset == "tiny":
        config.update(TINY)
    return config


TINY = {"checkpoint": {"every": 125}, "eval": {"every": 125}}
