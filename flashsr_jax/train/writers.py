"""Where the figures, pictures and sounds of a run go beside the terminal and metrics.jsonl: `config.writers`."""

import hashlib
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.errors import UserError
from flashsr_jax.extras import needing

TENSORBOARD = "tensorboard"  # the folder's name, too


class Writer(Protocol):
    """What process 0 of a run tells of each step; steps may come again where a run was resumed."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Values by name, "train/loss" and "eval/lsd" say."""

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Of a held-out clip: (height, width, 3) uint8."""

    def audio(self, step: int, name: str, audio_N: np.ndarray) -> None:
        """Of a held-out clip: (N,) float32 within -1 ... 1 at 48 kHz."""

    def close(self) -> None:
        """Once, at the end of the run, also of one that fails."""


class TensorBoard:
    """Event files in the run's folder."""

    def __init__(self, config: ConfigDict, workdir: Path, start_step: int):
        del config
        # Without a limit on its queue: its thread ends on a full disk, and the run would wait for it forever.
        self._board = SummaryWriter(str(workdir / TENSORBOARD), purge_step=start_step + 1, max_queue=0)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        self._board.add_image(name, picture, step, dataformats="HWC")

    def audio(self, step: int, name: str, audio_N: np.ndarray) -> None:
        self._board.add_audio(name, audio_N[:, None], step, SAMPLE_RATE)

    def close(self) -> None:
        self._board.close()


class WeightsAndBiases:
    """A run of Weights & Biases, which a resumed run goes on with. Its own variables say where it goes: WANDB_PROJECT,
    WANDB_ENTITY, WANDB_MODE=offline."""

    def __init__(self, config: ConfigDict, workdir: Path, start_step: int):
        del start_step
        with needing("wandb", "config.writers=wandb"):
            import wandb
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "flashsr_jax"),
            name=workdir.name,
            id=hashlib.sha256(os.fsencode(workdir.absolute())).hexdigest()[:16],
            resume="allow",
            dir=str(workdir),
            config=config.to_dict(),
        )

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        self._run.log({name: self._wandb.Image(picture)}, step=step)

    def audio(self, step: int, name: str, audio_N: np.ndarray) -> None:
        self._run.log({f"{name} (audio)": self._wandb.Audio(audio_N, SAMPLE_RATE)}, step=step)

    def close(self) -> None:
        self._run.finish()


WRITERS: dict[str, Callable[[ConfigDict, Path, int], Writer]] = {
    TENSORBOARD: TensorBoard,
    "wandb": WeightsAndBiases,
}


def writers(config: ConfigDict, workdir: Path, start_step: int) -> list[Writer]:
    """Those that `config.writers` names, with commas between them: of `WRITERS`, or MODULE:NAME of one's own, called
    with the same arguments.

    Raises UserError where there is none of that name.
    """
    return [_named(name)(config, workdir, start_step) for name in config.writers.split(",") if name]


def _named(name: str) -> Any:
    if name in WRITERS:
        return WRITERS[name]
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"config.writers: there is no {name} ({error}): choose of {', '.join(WRITERS)}, or MODULE:NAME of your own"
        ) from error
