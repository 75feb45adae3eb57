"""Made-up results of an evaluation, for the tests of the report: known figures, samples that an ear can tell apart."""

import numpy as np

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.evaluate.results import Problem, Results, Sample, Score, Spectrum, Speed

SYSTEMS = {"unprocessed": 3.0, "mirror": 2.2, "noise": 1.6, "FlashSR, published": 1.5, "flashsr_jax base": 1.3}
CLASSES = ("speech", "music", "effects")
CUTOFFS = (4000.0, 8000.0)
TONES_HZ = {"original": 300.0, "unprocessed": 500.0, "FlashSR, published": 800.0, "flashsr_jax base": 1300.0}


def synthetic_results(seconds: float = 2.0) -> Results:
    """300 scores, 3 samples of tones, one per signal: `TONES_HZ`."""
    rng = np.random.default_rng(0)
    return Results(
        settings={"data": "made up", "weights": "none", "seeds": "0", "machine": "2 cores"},
        scores=[
            _score(rng, system, level, cutoff_hz, class_name, clip)
            for system, level in SYSTEMS.items()
            for cutoff_hz in CUTOFFS
            for class_name in CLASSES
            for clip in range(10)
        ],
        problems=[
            Problem("music_3", "", 0, "shorter than a second"),
            Problem("speech_1", "noise", 4000, "out of memory"),
        ],
        samples=[Sample(_clip(name, 0), name, 4000.0, _signals(seconds)) for name in CLASSES],
        spectra=[
            _spectrum(system, name, hz) for system in ("original", *SYSTEMS) for name in CLASSES for hz in CUTOFFS
        ],
        speeds=[Speed("FlashSR, published", 0.8, 0.0), Speed("flashsr_jax base", 0.21, 14.2)],
    )


def _score(rng: np.random.Generator, system: str, level: float, cutoff_hz: float, class_name: str, clip: int) -> Score:
    lsd = level * (4000 / cutoff_hz) ** 0.3 + 0.1 * rng.standard_normal()
    metrics = {
        "lsd": lsd,
        "lsd_hf": 1.2 * lsd,
        "zimtohrli": lsd / 50,
        "visqol": min(5.0, 5.5 - lsd),
        "lsd_lf": 0.1 + 0.01 * lsd,
        "low_band_gain_db": 0.2 * rng.standard_normal(),
    }
    if clip == 9:
        del metrics["visqol"]  # not defined for every clip
    wall_hz = 16_000.0 if clip % 5 == 4 else 0.0
    return Score(system, cutoff_hz, _clip(class_name, clip), class_name, f"group {clip // 2}", wall_hz, 0, metrics)


def _clip(class_name: str, number: int) -> str:
    library = "/field recordings/with_names_as_long_as_those_of_sound_libraries" if class_name == "effects" else ""
    return f"{class_name}{library}_{number}"


def _signals(seconds: float) -> dict[str, np.ndarray]:
    t_N = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return {name: (0.4 * np.sin(2 * np.pi * hz * t_N)).astype(np.float32) for name, hz in TONES_HZ.items()}


def _spectrum(system: str, class_name: str, cutoff_hz: float) -> Spectrum:
    f_K = np.linspace(0, SAMPLE_RATE / 2, 1025)
    drop = 0 if system == "original" else 8 * SYSTEMS[system]
    level_K = -30 - 25 * np.log10(1 + f_K / 500) - drop * (f_K > cutoff_hz) + np.sin(f_K / 90)
    return Spectrum(system, class_name, cutoff_hz, f_K, level_K)
