"""Streams as windows and back: exactness with a stand-in for the networks."""

import numpy as np
import pytest
import soxr

from flashsr_jax.audio.resampling import resample_stream
from flashsr_jax.errors import UserError
from flashsr_jax.upscale import windows as module
from flashsr_jax.upscale.windows import framing, process_windows

from helpers.micro_model import MICRO

FRAMES = framing(MICRO)


def sound(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(channels, samples)).astype(np.float32) * 0.1


def blocks_of(x_CxN: np.ndarray, size: int):
    return (x_CxN[:, start : start + size] for start in range(0, x_CxN.shape[1], size))


def run(process, x_CxN, block=1 << 18, group=3, sample_rate=48_000):
    stream = resample_stream(blocks_of(x_CxN, block), sample_rate, len(x_CxN))
    output = list(process_windows(process, stream, FRAMES, channels=len(x_CxN), group=group))
    return np.concatenate([np.zeros((len(x_CxN), 0), np.float32), *output], axis=1)


def identity(x_GxCxN, start_G):
    return x_GxCxN


# ---- windows, with a stand-in for the networks


def test_framing_suits_the_model():
    assert module.Framing(window=245_760, context=23_040, lookahead=23_040, crossfade=3_840, hop=3_840) == FRAMES
    assert FRAMES.step % FRAMES.hop == 0
    assert framing(MICRO, 112).step == FRAMES.crossfade
    for frames in (0, 96, 120, 520):
        with pytest.raises(UserError, match=f"{frames} frames .* take a multiple of 16, 112 or more"):
            framing(MICRO, frames)


@pytest.mark.parametrize("sample_rate", [4000, 8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_with_an_identity_the_output_is_the_resampled_input(sample_rate):
    one, step = FRAMES.window - 2 * FRAMES.context, FRAMES.step  # what a lone window covers, and each further one
    lengths = [1, 2, 3, 100, FRAMES.context - 1, FRAMES.context, FRAMES.context + 1, one - 1, one, one + 1]
    lengths += [FRAMES.window - FRAMES.context, FRAMES.window, FRAMES.window + 1, one + step, one + step + 1]
    for at_48k in lengths:
        samples = max(1, round(at_48k * sample_rate / 48_000))
        x = sound(2, samples)
        y = run(identity, x, sample_rate=sample_rate)
        expected = soxr.resample(x.T, sample_rate, 48_000, quality="VHQ").T
        assert y.shape == (2, int(samples * 48_000 / sample_rate + 0.5))
        np.testing.assert_allclose(y, expected, atol=1e-6, err_msg=f"{samples} samples")


@pytest.mark.parametrize(("block", "group"), [(1 << 20, 1), (4_801, 1), (100_000, 7), (FRAMES.window, 2)])
def test_neither_blocks_nor_groups_change_the_output(block, group):
    def process(x_GxCxN, start_G):  # depends on the window, so that a window at a wrong place shows
        return x_GxCxN * (1 + np.cos(start_G))[:, None, None]

    x = sound(2, 44_100 * 14)
    np.testing.assert_array_equal(run(process, x, block, group, 44_100), run(process, x, 1 << 18, 3, 44_100))


@pytest.mark.parametrize("samples", [FRAMES.step + FRAMES.crossfade + 1, 3 * FRAMES.step])
def test_windows_start_at_the_time_that_they_are_told(samples):
    ramp = np.arange(samples, dtype=np.float32)[None]

    def process(x_GxCxN, start_G):
        assert (start_G % FRAMES.hop == 0).all()
        time = start_G[:, None, None] + np.arange(FRAMES.window)
        inside = (time >= 0) & (time < ramp.shape[1])
        np.testing.assert_array_equal(x_GxCxN[inside], time[inside])
        return x_GxCxN

    run(process, ramp)


def test_context_is_thrown_away():
    def process(x_GxCxN, start_G):
        y = x_GxCxN.copy()
        y[..., : FRAMES.context] = y[..., FRAMES.window - FRAMES.context :] = 1e6
        return y

    x = sound(1, 3 * FRAMES.step)
    np.testing.assert_allclose(run(process, x), x, atol=1e-6)


def test_neighbours_are_crossfaded():
    count = iter(range(10))

    def process(x_GxCxN, start_G):
        return np.stack([np.full(x.shape, next(count), np.float32) for x in x_GxCxN])

    y = run(process, sound(1, 2 * FRAMES.step + FRAMES.crossfade))[0]
    assert next(count) == 2
    step, fade = FRAMES.step, FRAMES.crossfade
    assert (y[:step] == 0).all() and (y[step + fade :] == 1).all()
    ramp = y[step : step + fade]
    assert (np.diff(ramp) > 0).all() and 0 < ramp[0] < 1e-5
    np.testing.assert_allclose(ramp + ramp[::-1], 1, atol=1e-6)


@pytest.mark.parametrize("samples", [FRAMES.context + 1, 60_000, FRAMES.window, 2 * FRAMES.window])
def test_both_ends_are_extended_by_reflection(samples):
    windows = {}

    def process(x_GxCxN, start_G):
        windows.update(zip(start_G.tolist(), x_GxCxN, strict=True))
        return x_GxCxN

    x = sound(1, samples)
    run(process, x)
    first, last = windows[min(windows)], windows[max(windows)]
    assert min(windows) == -FRAMES.context
    np.testing.assert_array_equal(first[:, : FRAMES.context], x[:, FRAMES.context : 0 : -1])
    beyond = last[:, samples - max(windows) :][:, : FRAMES.context]
    assert beyond.shape[1] == FRAMES.context
    np.testing.assert_array_equal(beyond, x[:, -2 : -2 - FRAMES.context : -1])


def test_output_follows_the_input_without_waiting_for_its_end():
    consumed = 0

    def source():
        nonlocal consumed
        for block in blocks_of(sound(1, 48_000 * 60), 48_000):
            consumed += 48_000
            yield block

    emitted = most = 0
    for block in process_windows(identity, source(), FRAMES, channels=1, group=2):
        most = max(most, consumed - emitted)
        emitted += block.shape[1]
    assert emitted == 48_000 * 60
    assert most <= FRAMES.window + 2 * FRAMES.step + 48_000


# ---- noise
