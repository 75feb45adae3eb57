"""U-Net, VAE decoder and vocoder tuned together against discriminators of the high band. Needs all three networks.

python -m flashsr_jax.main --config configs/tune.py:tiny --workdir runs/tune --config.data.dir=DATASET \
    --config.vae_from=runs/vae --config.init_from=runs/regression --config.vocoder_from=runs/vocoder_tuned

The U-Net may be a regression's or a student's. The run gives all three networks: `flashsr weights pack` and another
stage's init_from, vae_from or vocoder_from take its folder for each.
small: tried from the shipped weights, with 500 `discriminator_steps`, and not shipped: after 500 steps more Zimtohrli
was 0.0103 on the validation clips, of 0.0099 before (the corpus of launch/data.sh, docs/trials.md).
base: not trained yet.
"""

from ml_collections import ConfigDict

from flashsr_jax.train.defaults import SMALL_UNET_DATA, common, optimizer


def get_config(preset: str) -> ConfigDict:
    config = common("tune", preset)
    config.batch_size = {"tiny": 8, "small": 6, "base": 64}[preset]
    config.steps = {"tiny": 250, "small": 4000, "base": 100_000}[preset]
    config.discriminator_steps = {"tiny": 50, "small": 1000, "base": 5000}[preset]  # at first, for these alone
    config.decoder_frames = {"tiny": 128, "small": 128, "base": 512}[preset]  # of a window, for the decoder
    config.crop_frames = {"tiny": 20, "small": 24, "base": 32}[preset]  # of these, for vocoder and discriminators
    config.vae_from = ""
    config.init_from = ""  # the U-Net
    config.vocoder_from = ""
    config.best_metric = {"tiny": "lsd", "small": "zimtohrli", "base": "lsd"}[preset]

    config.losses = {
        "mel": 15.0,
        "power": 15.0,  # of wide bands, at three resolutions
        "decoded": 1.0,  # of the log-mel between decoder and vocoder, over all `decoder_frames`
        "features": 2.0,
        "adversarial": 1.0,
        "high_band": {"tiny": 1.0, "small": 3.0, "base": 1.0}[preset],  # weight of what is over the cutoff in `decoded`
    }
    config.discriminator = {
        "resolutions": ((512, 128),) if preset == "tiny" else ((512, 128), (1024, 256), (2048, 512)),
        "channels": {"tiny": 8, "small": 24, "base": 64}[preset],
        "periods": (2, 3) if preset == "tiny" else (2, 3, 5, 7, 11),
        "period_channels": {"tiny": 2, "small": 4, "base": 16}[preset],
    }
    schedule = dict(betas=(0.8, 0.99), warmup_steps=100, clip_norm=100.0)
    config.optimizer = {
        "tune": optimizer({"tiny": 2e-4, "small": 1e-4, "base": 2e-5}[preset], **schedule),
        "discriminator": optimizer({"tiny": 1e-3, "small": 4e-4, "base": 1e-4}[preset], **schedule),
    }
    if preset == "small":
        config.data.update(SMALL_UNET_DATA)
        config.eval.perceptual = True
    if preset == "tiny":
        config.update(TINY)
    return config


TINY = {"checkpoint": {"every": 125}, "eval": {"every": 125}}
