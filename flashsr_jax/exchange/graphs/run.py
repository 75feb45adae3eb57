"""Upscaling by the exported graphs, in NumPy and ONNX Runtime alone: what any other program does, too.

Everything that it knows of the model stands in model.json. Letters: G windows, C channels, N samples, T mel frames, F
mel bins; latents (T, F, Z).
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as runtime
from scipy import fft, signal, special

from flashsr_jax.audio.mel import mel_filterbank
from flashsr_jax.errors import UserError
from flashsr_jax.exchange.graphs.contract import FILE, FORMAT
from flashsr_jax.upscale.windows import Framing, process_windows

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))  # of Threefry-2x32
PARITY = 0x1BD11BDA  # its key schedule's constant
UNREADABLE = tuple(getattr(runtime, name) for name in ("Fail", "InvalidGraph", "InvalidProtobuf", "NoSuchFile"))


class Graphs:
    """The graphs of a folder that `flashsr weights export --to onnx` wrote, run by so many `threads` (0: one a core).

    Raises UserError where the folder has none, or a file of them is missing or damaged.
    """

    def __init__(self, folder: str | os.PathLike, threads: int = 0):
        file = Path(folder) / FILE
        if not file.is_file():
            raise UserError(f"{folder} has no {FILE}: give a folder that `flashsr weights export --to onnx` wrote")
        try:
            self.about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            known = self.about["format"] == FORMAT and "opset" in self.about
        except (ValueError, TypeError, KeyError):
            known = False
        if not known:
            raise UserError(
                f"{file} does not describe graphs of ONNX as this version does ({FORMAT}): export them again"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._sessions = {}
        for name, graph in self.about["graphs"].items():
            path = Path(folder) / graph["file"]
            try:
                self._sessions[name] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            except UNREADABLE as error:
                raise UserError(f"{path} cannot be read, export it again: {str(error).splitlines()[0]}") from error

    def run(self, graph: str, **inputs: np.ndarray) -> np.ndarray:
        """The output of `encoder`, `decoder` or `vocoder` on its inputs by name."""
        given = {name: np.asarray(value, np.float32) for name, value in inputs.items()}
        return self._sessions[graph].run(None, given)[0]

    def upscale(self, x_CxN: np.ndarray, seed: int = 0, window_frames: int | None = None) -> np.ndarray:
        """Super-resolve channels (C, N) at 48 kHz to (C, N) float32, as `flashsr_jax.FlashSR` does with cutoff_hz=None.

        Raises UserError for other shapes and for windows that do not suit the model.
        """
        if x_CxN.ndim != 2 or not x_CxN.size:
            raise UserError(f"expected audio of shape (channels, samples), got {x_CxN.shape}")
        window, hop = self.about["window"], self.about["latent"]["hop"]
        window_frames = window["frames"] if window_frames is None else window_frames
        multiple, shortest = window["frames_multiple_of"], window["shortest_frames"]
        if window_frames % multiple or window_frames < shortest:
            raise UserError(
                f"a window of {window_frames} frames does not suit this model: "
                f"take a multiple of {multiple}, {shortest} or more"
            )
        samples = window_frames * self.about["hop"]
        frames = Framing(samples, window["context"], window["context"], window["crossfade"], hop)

        def process(x_GxCxN: np.ndarray, start_G: np.ndarray) -> np.ndarray:
            return np.stack([self.window(x, start // hop, seed) for x, start in zip(x_GxCxN, start_G, strict=True)])

        blocks = process_windows(process, [np.asarray(x_CxN, np.float32)], frames, channels=len(x_CxN), group=1)
        return np.concatenate(list(blocks), axis=1)

    def window(self, x_CxN: np.ndarray, frame: int = 0, seed: int = 0) -> np.ndarray:
        """One window (C, N), which begins at latent frame `frame` of absolute time."""
        mean_Cx1 = x_CxN.mean(axis=1, keepdims=True)
        level_Cx1 = np.abs(x_CxN - mean_Cx1).max(axis=1, keepdims=True)
        peak = level_Cx1.max() + np.float32(1e-8)
        waveform = 0.5 * (x_CxN - mean_Cx1) / peak
        noises, phases = self._noises(len(x_CxN), x_CxN.shape[1], frame, seed)
        with_stft = "waveform" in self.about["graphs"]["encoder"]["inputs"]
        front = {"waveform": waveform} if with_stft else {"mel": self.log_mel(waveform)}
        latent = self.run("encoder", **front, **noises)
        mel = self.run("decoder", latent=latent)
        y_CxN = 2 * peak * self.run("vocoder", mel=mel, waveform=waveform, **phases) + mean_Cx1
        return np.where(level_Cx1 > 0, y_CxN, mean_Cx1)

    def log_mel(self, x_CxN: np.ndarray) -> np.ndarray:
        """(C, T, F) of normalised waveforms."""
        about, hop = self.about["mel"], self.about["hop"]
        padded = np.pad(x_CxN, ((0, 0), (about["pad"], about["pad"])), mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, about["n_fft"], axis=1)[:, ::hop]
        window = signal.get_window("hann", about["n_fft"]).astype(np.float32)
        magnitude = np.abs(fft.rfft(frames * window))
        mel = magnitude @ mel_filterbank(about["bins"], about["n_fft"]).T
        return np.log(np.maximum(mel, np.float32(about["floor"])))

    def _noises(self, channels: int, samples: int, frame: int, seed: int) -> tuple[dict[str, np.ndarray], ...]:
        """The encoder's and the vocoder's noises by name."""
        latent, about = self.about["latent"], self.about["noise"]
        frames = samples // latent["hop"]

        def noise(index: int, *features: int) -> np.ndarray:
            drawn = anchored_noise(seed, index, frame, (frames, *features))
            return np.broadcast_to(drawn, (channels, *drawn.shape))

        of_encoder = {name: noise(i, latent["bins"], latent["channels"]) for i, name in enumerate(about["inputs"])}
        phases = about.get("phases")
        return of_encoder, {phases["input"]: noise(phases["index"], phases["values"])} if phases else {}


def anchored_noise(seed: int, index: int, frame: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise (T, ...) of the noise input `index` from latent frame `frame` on, to the bit that of JAX
    but for the last digit of its inverse error function."""
    frames, *features = shape
    key = threefry((np.uint32(0), np.uint32(seed)), np.uint32(0), np.uint32(index))
    frame_T = ((frame + np.arange(frames)) % (1 << 32)).astype(np.uint32)
    key_Tx1 = [word[:, None] for word in threefry(key, np.zeros_like(frame_T), frame_T)]
    count_K = np.arange(np.prod(features), dtype=np.uint32)
    one, other = threefry((key_Tx1[0], key_Tx1[1]), np.zeros_like(count_K), count_K)
    fraction = ((one ^ other) >> np.uint32(9)).astype(np.float32) * np.float32(2**-23)
    lowest = np.nextafter(np.float32(-1), np.float32(0))
    uniform = np.maximum(lowest, np.float32(2) * fraction + lowest)
    return (np.sqrt(2) * special.erfinv(uniform)).astype(np.float32).reshape(shape)


def threefry(key: tuple[Any, Any], one: Any, other: Any) -> tuple[Any, Any]:
    """Threefry-2x32 of 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), of words of
    32 bits and arrays of them."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(PARITY))
    with np.errstate(over="ignore"):  # sums are modulo 2^32
        one, other = one + schedule[0], other + schedule[1]
        for step in range(5):
            for rotation in ROTATIONS[step % 2]:
                one = one + other
                other = one ^ (other << np.uint32(rotation) | other >> np.uint32(32 - rotation))
            one = one + schedule[(step + 1) % 3]
            other = other + schedule[(step + 2) % 3] + np.uint32(step + 1)
    return one, other
