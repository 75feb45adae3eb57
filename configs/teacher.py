"""The diffusion teacher. Needs the VAE.

python -m flashsr_jax.main --config configs/teacher.py:tiny --workdir runs/teacher --config.data.dir=DATASET \
    --config.vae_from=runs/vae

tiny: 3 minutes on 2 CPU cores, validation velocity_mse 0.47 (demo data).
small: tried and measured beside the shipped model, which is the regression. From that (--config.init_from), on windows
that were encoded once: 0.4 hours on two cores of an Intel Xeon that had other work beside it, validation velocity_mse
0.176, LSD 1.45 (the corpus of launch/data.sh). That of docs/ablation.md had 12000 steps: 0.137.
base: not trained yet.
"""

from ml_collections import ConfigDict

from flashsr_jax.train.defaults import SMALL_UNET_DATA, common, optimizer


def get_config(preset: str) -> ConfigDict:
    config = common("teacher", preset)
    config.batch_size = {"tiny": 8, "small": 12, "base": 256}[preset]
    config.steps = {"tiny": 250, "small": 3600, "base": 500_000}[preset]
    config.vae_from = ""
    config.data.latents = ""  # folders of windows that were encoded before, instead of config.data.dir's
    config.init_from = ""  # a U-Net to start from: a regression run, say
    config.vocoder_from = ""
    config.best_metric = "velocity_mse"

    config.losses = {
        "weighting": "v",  # of timesteps; or "x0", "min_snr" (train/losses.py)
        "snr_limit": 5.0,  # of "min_snr"
        "loudness": 0.0,  # exponent of the latents' weight by amplitude
        "high_band": {"tiny": 1.0, "small": 3.0, "base": 1.0}[preset],  # weight of what is over the cutoff
    }
    config.timestep_power = 1.0  # timesteps are drawn by t^(this - 1): over 1 more of those that see little but noise
    config.condition_drop = 0.1
    config.eval.steps = {"tiny": 8, "small": 8, "base": 50}[preset]
    config.eval.guidance = {"tiny": 1.0, "small": 1.0, "base": 3.5}[preset]
    config.optimizer = {
        "teacher": optimizer(
            {"tiny": 1e-3, "small": 1e-3, "base": 1e-4}[preset],
            kind={"tiny": "adamw", "small": "muon", "base": "adamw"}[preset],
            warmup_steps={"tiny": 50, "small": 50, "base": 5000}[preset],
            decay={"tiny": 1.0, "small": 0.5, "base": 1.0}[preset],
        )
    }
    if preset == "small":
        config.data.update(SMALL_UNET_DATA)
    if preset == "tiny":
        config.update(TINY)
    return config


TINY = {"checkpoint": {"every": 125}, "eval": {"every": 125}}
