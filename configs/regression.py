"""The student's U-Net by regression alone: what diffusion and distillation have to beat. Needs the VAE.

python -m flashsr_jax.main --config configs/regression.py:tiny --workdir runs/regression --config.data.dir=DATASET \
    --config.vae_from=runs/vae
"""

from flashsr_jax.train.defaults import common, optimizer


def get_config(preset):
    config = common("regression", preset)
    config.batch_size = {"tiny": 8, "small": 16, "base": 256}[preset]
    config.steps = {"tiny": 250, "small": 30_000, "base": 200_000}[preset]
    config.vae_from = ""
    config.data.latents = ""  # windows that `flashsr_jax.cache_latents` encoded, instead of config.data.dir's
    config.init_from = ""  # a U-Net to go on from
    config.vocoder_from = ""
    config.best_metric = "mel_l1_hf"

    config.losses = {
        "latent": 1.0,
        "latent_l2": {"tiny": 0.0, "small": 1.0, "base": 0.0}[preset],
        "mel": 0.5,  # of the decoded log-mel
        "loudness": {"tiny": 0.0, "small": 0.4, "base": 0.0}[preset],  # exponent of the latents' weight by amplitude
        "high_band": {"tiny": 1.0, "small": 4.0, "base": 1.0}[preset],  # weight of what is above the cutoff in both
    }
    config.optimizer = {
        "regression": optimizer(
            {"tiny": 1e-3, "small": 2e-3, "base": 1e-4}[preset],
            kind={"tiny": "adamw", "small": "muon", "base": "adamw"}[preset],
            warmup_steps={"tiny": 50, "small": 50, "base": 5000}[preset],
        )
    }
    if preset == "tiny":
        config.update(TINY)
    return config


TINY = {"log_every": 25, "checkpoint": {"every": 125}, "eval": {"every": 125}}
