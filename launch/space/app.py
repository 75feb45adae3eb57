"""A page for a Hugging Face Space: a recording in, the same at 48 kHz with its high band restored, and both to look at.

    python app.py

The Space's variable WEIGHTS names another model than the one that comes along: hf:OWNER/REPO, say.
"""

import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile

from flashsr_jax import FlashSR
from flashsr_jax.audio.pictures import file_spectrograms
from flashsr_jax.errors import UserError

LONGEST_MINUTES = 10  # on a Space's two cores a minute or two
KEPT_SECONDS = 3600  # of what was uploaded and made


@functools.cache
def model() -> FlashSR:
    """Loaded once for all visitors."""
    return FlashSR.load(os.environ.get("WEIGHTS", "small"))


def restore(recording: str | None) -> Iterator[tuple[str, str]]:
    """Yields, once, a wav file at 48 kHz and a picture of before and after; they are there until the next is asked for.

    Raises UserError for what cannot be read, and for what is too long.
    """
    if recording is None:
        raise UserError("choose a recording first")
    try:
        with soundfile.SoundFile(recording) as file:
            if file.frames > LONGEST_MINUTES * 60 * file.samplerate:
                raise UserError(f"this recording is longer than {LONGEST_MINUTES} minutes: restore a part of it")
            x_NxC, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    except soundfile.LibsndfileError as error:
        raise UserError(f"this file cannot be read as sound: {error.error_string}") from error
    if not len(x_NxC):
        raise UserError("there is no sound in this recording")
    y_CxN = model()(x_NxC.T, rate, ceiling=1.0)
    with tempfile.TemporaryDirectory() as folder:
        restored, picture = f"{folder}/{Path(recording).stem}-48k.wav", f"{folder}/spectrograms.png"
        soundfile.write(restored, y_CxN.T, FlashSR.sample_rate, "PCM_24")
        file_spectrograms({"before": Path(recording), "after": Path(restored)}, picture)
        yield restored, picture


def page() -> Any:
    """The page, a `gradio.Blocks`."""
    import gradio

    def shown(recording: str | None) -> Iterator[tuple[str, str]]:
        try:
            yield from restore(recording)
        except UserError as error:
            raise gradio.Error(str(error), print_exception=False) from error

    with gradio.Blocks(title="FlashSR", delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as blocks:
        gradio.Markdown(
            "# FlashSR\nRestores the missing high band of speech, music and sound effects in one step: "
            f"recordings of 4 to 32 kHz in, 48 kHz out, up to {LONGEST_MINUTES} minutes."
        )
        recording = gradio.Audio(label="Recording", type="filepath")
        button = gradio.Button("Restore", variant="primary")
        restored = gradio.Audio(label="Restored", type="filepath")
        picture = gradio.Image(label="Before and after")
        button.click(shown, recording, [restored, picture], api_name="restore")
    return blocks


if __name__ == "__main__":
    model()  # before the first visitor comes
    page().launch()
