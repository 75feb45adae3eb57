"""The report's clips: sounds for its players, and spectrograms beside each other.

Letters: N samples, T frames, K STFT bins, H pixels.
"""

import base64
import html
import io

import matplotlib
import numpy as np
import soundfile
from PIL import Image

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.pictures import COLOURS, RANGE_DB, spectrogram_db
from flashsr_jax.evaluate.report.tables import khz
from flashsr_jax.evaluate.results import Sample

PICTURE_COLUMNS, PICTURE_ROWS, PICTURE_LEVELS = 500, 512, 64  # 64 colours: 1.6 dB each, half the bytes of 256


def player_data(sample: Sample, audio: dict[bytes, int]) -> dict:
    """What the player needs: names, and numbers of the sounds in `audio`, to which new ones are added.

    One gain for all signals of a sample keeps the loudest under full scale.
    """
    peak = max(float(np.abs(x_N).max(initial=0)) for x_N in sample.signals.values())
    gain = 0.999 / max(peak, 0.999)
    sounds = {name: _flac(gain * x_N) for name, x_N in sample.signals.items()}
    return {
        "title": _sample_title(sample),
        "signals": [{"name": name, "audio": audio.setdefault(flac, len(audio))} for name, flac in sounds.items()],
    }


def spectrograms(sample: Sample) -> str:
    """Spectrograms of a sample's signals on one colour scale, which the page shows when the sample is chosen."""
    longest = max(len(x_N) for x_N in sample.signals.values())
    hop = max(256, -(-longest // PICTURE_COLUMNS))
    spectra = {name: spectrogram_db(x_N, hop) for name, x_N in sample.signals.items()}
    top = max(spectrum_KxT.max() for spectrum_KxT in spectra.values())
    frequencies = "".join(f"<span>{khz}</span>" for khz in range(SAMPLE_RATE // 2000, -1, -4))
    seconds = f"<span>0</span><span>{longest / SAMPLE_RATE:.1f} s</span>"
    figures = []
    for title, spectrum_KxT in spectra.items():
        name = html.escape(title)
        png = base64.b64encode(_spectrogram_png(spectrum_KxT - top)).decode()
        figures.append(
            f'<figure><figcaption>{name}</figcaption><div class="axes"><div class="frequencies">{frequencies}</div>'
            f'<div class="view" data-view="{name}"><img alt="Spectrogram of {name}, 0 to 24 kHz" '
            f'src="data:image/png;base64,{png}"><div class="cutoff"></div><div class="playhead"></div></div>'
            f'<div class="seconds">{seconds}</div></div></figure>'
        )
    cutoff = 100 * sample.cutoff_hz / (SAMPLE_RATE / 2)
    return f'<div class="clip spectrograms" style="--cutoff: {cutoff:.2f}%" hidden>{"".join(figures)}</div>'


def _sample_title(sample: Sample) -> str:
    return ", ".join(filter(None, (sample.clip, sample.class_name, f"cutoff {khz(sample.cutoff_hz)}")))


def _flac(x_N: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, x_N, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _spectrogram_png(level_KxT: np.ndarray) -> bytes:
    """Levels in dB, 0 the brightest, as a PNG of `PICTURE_LEVELS` colours, the highest frequency on top."""
    rows_HxT = level_KxT[:-1].reshape(PICTURE_ROWS, -1, level_KxT.shape[1]).max(axis=1)[::-1]
    scaled_HxT = np.clip(1 + rows_HxT / RANGE_DB, 0, 1) * (PICTURE_LEVELS - 1)
    image = Image.fromarray(np.round(scaled_HxT).astype(np.uint8), mode="P")
    colours = matplotlib.colormaps[COLOURS](np.linspace(0, 1, PICTURE_LEVELS), bytes=True)[:, :3]
    image.putpalette(colours.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
