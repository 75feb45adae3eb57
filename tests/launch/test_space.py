"""launch/space/: the page of a Hugging Face Space, on a real recording, as a function and as visitors meet it."""

import importlib.util
import re
import runpy
from unittest import mock

import numpy as np
import pytest
import setuptools
import soundfile
import soxr
import yaml

from flashsr_jax import FlashSR
from flashsr_jax.errors import UserError
from flashsr_jax.weights.store import save_weights

from helpers import RECORDINGS, ROOT
from helpers.micro_model import MICRO, micro_params

SPACE = ROOT / "launch" / "space"
SPEECH = RECORDINGS / "speech/alsa-english/test.flac"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    weights = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    save_weights(weights, MICRO, micro_params())
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEIGHTS", str(weights))
        yield app


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Two seconds of speech at 8 kHz in stereo, as a visitor has them."""
    x_N, rate = soundfile.read(SPEECH, dtype="float32", frames=96_000)
    low_N = soxr.resample(x_N, rate, 8000)
    path = tmp_path_factory.mktemp("recording") / "call.flac"
    soundfile.write(path, np.stack([low_N, 0.5 * low_N], axis=1), 8000)
    return path


def check(app, recording, restored, picture):
    """What the model makes of the recording, to the last bit of 24, and a picture."""
    x_NxC, rate = soundfile.read(recording, dtype="float32")
    y_NxC, rate_out = soundfile.read(restored, dtype="float32")
    assert (rate_out, y_NxC.shape) == (48_000, (6 * len(x_NxC), 2))
    expected = app.model()(x_NxC.T, rate, ceiling=1.0)
    np.testing.assert_allclose(y_NxC, np.clip(expected.T, -1, 1), atol=2**-22)
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000


def test_a_recording_comes_back_at_48_khz_with_a_picture(app, recording):
    for restored, picture in app.restore(str(recording)):
        assert restored.endswith("/call-48k.wav")
        check(app, recording, restored, ROOT / picture)
    assert isinstance(app.model(), FlashSR) and not (ROOT / restored).exists()


def test_what_cannot_be_restored_is_said(app, recording, tmp_path, monkeypatch):
    (tmp_path / "text.wav").write_text("no sound at all, but some words")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    for path, message in (
        (None, "choose a recording first"),
        (tmp_path / "text.wav", "this file cannot be read as sound: .*[Ff]ormat"),
        (tmp_path / "empty.wav", "there is no sound in this recording"),
    ):
        with pytest.raises(UserError, match=message):
            next(app.restore(path and str(path)))
    monkeypatch.setattr(app, "LONGEST_MINUTES", 1 / 60)
    with pytest.raises(UserError, match="longer than .* restore a part"):
        next(app.restore(str(recording)))


def test_the_page_in_gradio(app, recording, monkeypatch):
    """Through its server, by the client that comes with it."""
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")  # it would ask the network
    gradio = pytest.importorskip("gradio", reason="needs gradio, which a Space brings")
    client = pytest.importorskip("gradio_client")
    page = app.page()
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True)
    try:
        asked = client.Client(url, verbose=False)
        restored, picture = asked.predict(client.handle_file(str(recording)), api_name="/restore")
        check(app, recording, restored, ROOT / picture)
        with pytest.raises(client.exceptions.AppError, match="choose a recording first"):
            asked.predict(None, api_name="/restore")
    finally:
        page.close()
    assert gradio.__version__.split(".")[0] == front_matter()["sdk_version"].split(".")[0]


def front_matter() -> dict:
    text = (SPACE / "README.md").read_text(encoding="utf-8")
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL).group(1))


def test_the_space_is_described_and_installs_what_the_package_needs():
    about = front_matter()
    assert about["sdk"] == "gradio" and (SPACE / about["app_file"]).is_file()
    assert len(about["short_description"]) <= 60  # the Hub takes no more
    with mock.patch.object(setuptools, "setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    told = setup.call_args.kwargs
    needed = {*told["install_requires"], *told["extras_require"]["hub"], *told["extras_require"]["pictures"]}
    assert set((SPACE / "requirements.txt").read_text().split()) == needed
    major, minor = about["python_version"].split(".")
    assert (int(major), int(minor)) >= (3, 11)
