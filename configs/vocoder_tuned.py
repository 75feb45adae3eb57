"""The SR Vocoder tuned on the mel that the VAE decodes, as at inference. Needs the vocoder and the VAE.

python -m flashsr_jax.main --config configs/vocoder_tuned.py:tiny --workdir runs/vocoder_tuned \
    --config.data.dir=DATASET --config.vae_from=runs/vae --config.init_from=runs/vocoder

small: the last run of the shipped vocoder, with --config.init_from=small, the weights so far. 0.4 hours on two cores of
an Intel Xeon that had other work beside it: validation LSD 0.706 from decoded mel (the corpus of launch/data.sh).
Before it came 1000 steps from vocoder.py's, docs/small/vocoder_tuned.json: 0.8 hours on one core of an AMD EPYC, LSD
0.721.
base: not trained yet.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config(preset: str) -> ConfigDict:
    config = runpy.run_path(str(Path(__file__).parent / "vocoder.py"))["get_config"](preset)
    config.mel_source = "vae"
    if preset == "small":
        config.update(SMALL)
    return config


SMALL = {
    "batch_size": 16,
    "steps": 700,
    "ema_decay": 0.99,
    "data": {"window_frames": 64, "log_cutoff": True},
    "losses": {"mel": 20.0, "stft": 10.0, "power": 60.0},
    "optimizer": {"vocoder": {"kind": "muon", "lr": 1e-3, "warmup_steps": 20, "decay": 0.1}},
    "checkpoint": {"every": 100},
    "eval": {"every": 300},
}
