"""The body of `flashsr compare`: two files against the original, metric by metric. Letters: N samples, C channels."""

import numpy as np
import soxr

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio import files as audio_files
from flashsr_jax.audio.bandwidth import bandwidth
from flashsr_jax.audio.resampling import check_finite
from flashsr_jax.errors import UserError, one_line, reason
from flashsr_jax.evaluate.measuring import every_metric
from flashsr_jax.evaluate.metrics import BETTER, NYQUIST, ReferenceSpectra
from flashsr_jax.evaluate.references import wall
from flashsr_jax.evaluate.signals import Unmeasurable


def compare(a: str, b: str, reference: str, cutoff_hz: float | None = None, perceptual: bool = True) -> str:
    """A table of every metric of files `a` and `b` against `reference`, mean over channels, and which is better.

    Without a cutoff, only what concerns the whole band. Files of other rates than 48 kHz are resampled, all three
    alike. A metric that is not defined for a channel leaves that channel out. Raises UserError that names the file
    where one cannot be read or measured, or where rates, lengths or channels differ.
    """
    if cutoff_hz is not None and not 0 < cutoff_hz <= NYQUIST:
        raise UserError(f"{cutoff_hz:g}: give a frequency over 0 and up to {NYQUIST:g} Hz", "cutoff")
    original_CxN, rate = _read(reference)
    measured, problems = [], []
    for path in (a, b):
        x_CxN, other_rate = _read(path)
        if other_rate != rate:
            raise UserError(f"{path} has {other_rate} Hz and {reference} {rate} Hz: bring them to one rate")
        if x_CxN.shape != original_CxN.shape:
            raise UserError(
                f"{path} has {x_CxN.shape[1]} samples x {x_CxN.shape[0]} channels and {reference} "
                f"{original_CxN.shape[1]} x {original_CxN.shape[0]}: cut them to one length"
            )
        try:
            measured.append(_mean_metrics(original_CxN, x_CxN, rate, cutoff_hz, perceptual))
        except Unmeasurable as error:
            problems.append(f"{path} cannot be measured: {error}")
    if problems:
        raise UserError("; ".join(problems))
    rows = [f"{'':18} {'A':>9} {'B':>9}  better", one_line(f"A: {a}"), one_line(f"B: {b}")]
    bands = [name for name in measured[0] if name not in BETTER]
    for name in [n for metric in BETTER for n in (metric, *(bands if metric == "loud_band_gain_db" else ()))]:
        if name in measured[0] and name in measured[1]:
            value_a, value_b = measured[0][name], measured[1][name]
            better = BETTER.get(name, "zero")
            loss_a, loss_b = ({"lower": v, "higher": -v, "zero": abs(v)}[better] for v in (value_a, value_b))
            verdict = "A" if loss_a < loss_b else "B" if loss_b < loss_a else "equal"
            rows.append(f"{name:18} {value_a:9.3f} {value_b:9.3f}  {verdict}")
    return "\n".join([*rows[1:3], rows[0], *rows[3:]])


def _read(path: str) -> tuple[np.ndarray, int]:
    try:
        x_CxN, rate = audio_files.read(path)
        check_finite(x_CxN, 0)
    except OSError:
        raise
    except Exception as error:
        raise UserError(f"{path} {reason(error)}") from error
    return x_CxN.astype(np.float64), rate


def _mean_metrics(
    reference_CxN: np.ndarray, x_CxN: np.ndarray, rate: int, cutoff_hz: float | None, perceptual: bool
) -> dict[str, float]:
    of_channels = []
    for original_N, x_N in zip(reference_CxN, x_CxN, strict=True):
        wall_hz = wall(bandwidth(original_N.astype(np.float32), rate))
        if rate != SAMPLE_RATE:
            original_N, x_N = (soxr.resample(signal, rate, SAMPLE_RATE, "VHQ") for signal in (original_N, x_N))
        spectra = ReferenceSpectra(original_N, wall_hz)
        metrics, loud_bands_db = every_metric(spectra, x_N, cutoff_hz or NYQUIST, perceptual)
        if cutoff_hz is None:
            metrics = {n: v for n, v in metrics.items() if not n.endswith(("_hf", "_lf")) and "low_band" not in n}
        metrics |= {f"  {hz / 1000:g}–{hz / 1000 + 2:g} kHz": gain for hz, gain in loud_bands_db.items()}
        of_channels.append(metrics)
    names = dict.fromkeys(name for metrics in of_channels for name in metrics)
    return {name: float(np.mean([m[name] for m in of_channels if name in m])) for name in names}
