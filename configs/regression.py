"""The student's U-Net by regression alone: what diffusion and distillation have to beat. Needs the VAE.

python -m flashsr_jax.main --config configs/regression.py:tiny --workdir runs/regression --config.data.dir=DATASET \
    --config.vae_from=runs/vae

small: the last of the runs that the shipped U-Net comes from, with --config.init_from=small, the weights so far, on
windows that were encoded once: the best of its evaluations, at step 250, in 0.4 hours on two cores of an AMD EPYC that
had other work beside it. By itself it is too loud (validation LSD 1.49), since its quantile counted under the cutoff,
too; what is shipped is the mean of three parts of the weights before it and two parts of these. Before it came 8400
steps in four runs. MODEL_CARD.md has all their figures, docs/small/regression*.json their configurations.
base: not trained yet.
"""

from ml_collections import ConfigDict

from flashsr_jax.train.defaults import SMALL_UNET_DATA, common, optimizer


def get_config(preset: str) -> ConfigDict:
    config = common("regression", preset)
    config.batch_size = {"tiny": 8, "small": 12, "base": 256}[preset]
    config.steps = {"tiny": 250, "small": 1500, "base": 200_000}[preset]
    config.vae_from = ""
    config.data.latents = ""  # folders of windows that were encoded before, instead of config.data.dir's
    config.init_from = ""  # a U-Net to go on from
    config.keep_from = ""  # a U-Net whose answers are learned where the cutoff is over keep_over_hz
    config.keep_over_hz = 0.0
    config.vocoder_from = ""
    config.best_metric = {"tiny": "mel_l1_hf", "small": "zimtohrli", "base": "mel_l1_hf"}[preset]

    config.losses = {
        "latent": {"tiny": 1.0, "small": 0.5, "base": 1.0}[preset],
        "latent_l2": {"tiny": 0.0, "small": 0.5, "base": 0.0}[preset],
        "mel": {"tiny": 0.5, "small": 1.0, "base": 0.5}[preset],  # of the decoded log-mel
        "mel_quantile": {"tiny": 0.5, "small": 0.7, "base": 0.5}[preset],  # that its loss aims at over the cutoff
        "zimtohrli": 0.0,  # what the metrics hear of that mel: a distance, and points lost
        "visqol": 0.0,
        "keep": 1.0,  # distance from the clean latents of config.keep_from, if any
        "loudness": {"tiny": 0.0, "small": 0.4, "base": 0.0}[preset],  # exponent of the latents' weight by amplitude
        "high_band": {"tiny": 1.0, "small": 4.0, "base": 1.0}[preset],  # weight of what is above the cutoff in both
    }
    config.optimizer = {
        "regression": optimizer(
            {"tiny": 1e-3, "small": 5e-4, "base": 1e-4}[preset],
            kind={"tiny": "adamw", "small": "muon", "base": "adamw"}[preset],
            warmup_steps={"tiny": 50, "small": 30, "base": 5000}[preset],
            decay={"tiny": 1.0, "small": 0.3, "base": 1.0}[preset],
        )
    }
    if preset == "small":
        config.update(SMALL)
        config.data.update(SMALL_UNET_DATA)
    if preset == "tiny":
        config.update(TINY)
    return config


SMALL = {"seed": 6, "ema_decay": 0.99, "checkpoint": {"every": 250}, "eval": {"every": 250, "perceptual": True}}
TINY = {"checkpoint": {"every": 125}, "eval": {"every": 125}}
