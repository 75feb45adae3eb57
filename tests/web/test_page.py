"""The page in a browser, with the model that comes along: what it makes is what the Python package makes.

Needs onnxruntime-web in the cache, where the first `flashsr web` leaves it.
"""

import os
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from flashsr_jax import FlashSR

from helpers import RECORDINGS
from helpers.browser import LISTEN, MEASURE, chromium, until
from helpers.page import PATIENCE, choose, click, downloaded, page_served, press, restore, shown, text

pytestmark = pytest.mark.slow
SPEECH = RECORDINGS / "speech/kseniya-buraya/belarusian-1.ogg"
TIMES_NATIVE = 6  # WebAssembly's 128 bits at once where the CPU has 256 or 512, and one thread beside the networks
IDLE = 1.0  # load average under which the machine is this test's alone


@pytest.fixture(scope="module")
def address():
    with page_served() as url:
        yield url


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory, downloads):
    driver = chromium(tmp_path_factory.mktemp("profile"), downloads)
    driver.set_window_size(1100, 900)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, address):
    browser.get_log("browser")
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []  # errors, refused loads, warnings
    hosts = "return [...new Set(performance.getEntriesByType('resource').map((e) => new URL(e.name).origin + '/'))]"
    assert set(browser.execute_script(hosts)) <= {address}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Recordings as people have them, by what they are."""
    folder = tmp_path_factory.mktemp("files")
    speech, _ = soundfile.read(SPEECH, dtype="float32")
    low = soxr.resample(speech, 48000, 16000)
    rng = np.random.default_rng(0)
    contents = {
        "mono": (low, 16000, "PCM_16"),
        "stereo": (np.stack([low[:24_000], 0.5 * low[24_000:48_000]], 1), 16000, "FLOAT"),
        "short": (low[:16_000], 16000, "PCM_16"),
        "whole": (0.1 * rng.normal(size=48_000), 48000, "PCM_16"),
        "silent": (np.zeros(16_000), 16000, "PCM_16"),
        "broken": (np.full(16_000, np.nan, np.float32), 16000, "FLOAT"),
        "slow": (low[:4000], 2000, "PCM_16"),
        "fast": (low[:4000], 2**31 - 1, "PCM_16"),
    }
    for name, (x, rate, subtype) in contents.items():
        soundfile.write(folder / f"{name}.wav", x, rate, subtype)
    (folder / "text.wav").write_text("no sound at all, but some words")
    (folder / "empty.mp3").write_bytes(b"")
    return {path.stem: path for path in folder.iterdir()}


def lit(page, view: str) -> float:
    """The share of a spectrogram over 9 kHz that is not black."""
    script = """
    const canvas = document.querySelector(`[data-view=${arguments[0]}] canvas`);
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, Math.floor((canvas.height * 15) / 24));
    let lit = 0;
    for (let i = 0; i < data.length; i += 4) lit += data[i] > 40;
    return (4 * lit) / data.length;
    """
    return page.execute_script(script, view)


@pytest.mark.parametrize("name", ["mono", "stereo"])
def test_the_output_is_that_of_the_package(page, files, downloads, name):
    choose(page, files[name])
    assert f"{name}, 16 kHz sampling" in text(page, "facts")
    assert page.find_element("id", "cutoff").find_element("tag name", "option").text.endswith("kHz, measured")
    assert lit(page, "before") < 0.02
    restore(page)
    assert lit(page, "after") > 0.2
    x_NxC, rate = soundfile.read(files[name], dtype="float32", always_2d=True)
    expected = FlashSR.load("small")(np.ascontiguousarray(x_NxC.T), rate)
    for bits in (32, 24):
        got = downloaded(page, downloads, f"{name}-48k.wav", bits)
        assert got.shape == expected.shape
        assert 20 * np.log10(np.abs(got - expected).max() / np.abs(expected).max()) < -60


def test_it_is_faster_than_the_sound_lasts(page, files):
    if os.getloadavg()[0] > IDLE:
        pytest.skip("the machine is busy")
    choose(page, files["mono"])
    restore(page)  # loads the model, too
    assert page.execute_script("return crossOriginIsolated")
    assert restore(page) < soundfile.info(files["mono"]).duration


def test_it_takes_a_few_times_as_long_as_onnxruntime_without_a_browser(page, address, files, tmp_path):
    """The same graphs with as many threads, in turn, so that it holds on a busy machine, too."""
    from flashsr_jax.exchange.graphs.run import Graphs

    for name in ("model.json", "encoder.onnx", "decoder.onnx", "vocoder.onnx"):
        with urllib.request.urlopen(f"{address}model/{name}") as answer:
            (tmp_path / name).write_bytes(answer.read())
    graphs = Graphs(tmp_path)
    low, rate = soundfile.read(files["mono"], dtype="float32")
    x_CxN = soxr.resample(low, rate, 48_000)[None]

    def native() -> float:
        start = time.monotonic()
        graphs.upscale(x_CxN)
        return time.monotonic() - start

    choose(page, files["mono"])
    restore(page)  # loads the model, too
    native()
    ratios = [restore(page) / native() for _ in range(3)]
    assert np.median(ratios) < TIMES_NATIVE, ratios


def test_the_browser_lets_the_page_send_nothing(page):
    script = """
    const [done, refused] = [arguments[0], []];
    addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
    const image = new Image();
    image.src = "http://127.0.0.2:9/image.png";
    fetch("http://127.0.0.2:9/", { method: "POST", body: "sound" }).catch(() => {
      navigator.sendBeacon("http://127.0.0.2:9/", "sound");
      setTimeout(() => done([...new Set(refused)].sort()), 500);
    });
    """
    assert page.execute_async_script(script) == ["connect-src", "img-src"]
    assert len(page.get_log("browser")) >= 3  # each was said in the console
    page.execute_script("performance.clearResourceTimings()")  # and tried
    assert "Files never leave this machine" in page.find_element("class name", "private").text


def test_cancelling_stops_soon_and_leaves_all_as_it_was(page, files):
    choose(page, files["mono"])
    click(page, "start")
    until(lambda: "left" in text(page, "left"), PATIENCE)  # the networks are at work
    press(page, "\ue00c")  # Escape
    until(lambda: not shown(page, "running"), 60)
    assert not shown(page, "saving") and not shown(page, "problem") and shown(page, "empty")
    assert page.switch_to.active_element.get_attribute("id") == "start"
    choose(page, files["short"])
    click(page, "start")
    until(lambda: shown(page, "cancel"))
    choose(page, files["stereo"])  # another file ends what is under way
    until(lambda: text(page, "name") == "stereo.wav" and shown(page, "settings"), 60)
    restore(page)


def test_switching_is_without_a_gap(page, files):
    """Two tones in the place of a recording and what was made of it, so that every gap and click shows."""
    choose(page, files["short"])
    page.execute_script("""
    window.player = flashsr.player;
    const wave = (hz, i) => 0.4 * Math.sin((2 * Math.PI * hz * i) / 48000);
    const tone = (hz) => Float32Array.from({ length: 144000 }, (_, i) => wave(hz, i));
    player.load(flashsr.buffers({ before: [tone(500)], after: [tone(800)] }), "before");
    document.activeElement.blur();
    """)
    press(page, " ")
    until(lambda: page.execute_script("return player.position > 0.2"))
    page.execute_script(LISTEN)
    until(lambda: page.execute_script("return heard.length > 0"))
    for key in "21" * 6:
        press(page, key)
        pressed = "return document.querySelector('[data-signal][aria-pressed=true]').dataset.signal"
        assert page.execute_script(pressed) == {"1": "before", "2": "after"}[key]
        time.sleep(0.04)
    heard = page.execute_script(MEASURE)
    assert heard["windows"] > 40 and heard["quietest"] > 0.05 and heard["peak"] < 0.45
    assert heard["step"] < 1.2 * 0.4 * 2 * np.pi * 800 / 48_000
    press(page, " ")
    until(lambda: not page.execute_script("return player.playing"))


MISTAKES = {
    "text": "text.wav: this browser cannot read it as sound",
    "empty": "empty.mp3: this browser cannot read it as sound",
    "broken": "broken.wav: it has samples that are not finite: repair the file",
    "slow": "slow.wav: its sample rate is 2000 Hz: 4000 Hz or more are needed",
    "fast": "fast.wav: its sample rate is 2147483647 Hz, over 768000 Hz: repair the header, or resample",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_files_that_cannot_be_restored_are_named(page, files, name):
    choose(page, files[name])
    assert text(page, "problem") == MISTAKES[name]
    assert not shown(page, "work") and not shown(page, "listen")
    choose(page, files["short"])
    assert not shown(page, "problem") and page.find_element("id", "start").is_enabled()


def test_where_nothing_is_missing_the_page_says_so(page, files):
    for name, hint in (("whole", "This recording reaches 24 kHz already"), ("silent", "This recording is silent")):
        choose(page, files[name])
        until(lambda: text(page, "name") == f"{name}.wav" and shown(page, "hint"), 60)  # noqa: B023
        assert text(page, "hint").startswith(hint) and not page.find_element("id", "start").is_enabled()
    page.find_element("css selector", "#cutoff option[value='8000']").click()
    assert not shown(page, "hint") and page.find_element("id", "start").is_enabled()
    page.find_element("css selector", "#cutoff option[value='other']").click()
    for value, allowed in (("7000", True), ("99", False), ("", False), ("500", True)):
        field = page.find_element("id", "hertz")
        field.clear()
        field.send_keys(value)
        assert page.find_element("id", "start").is_enabled() == allowed


def test_other_files_keep_their_own_rate(page):
    choose(page, RECORDINGS / "speech/ktuberling-greek/cheese.ogg")
    assert text(page, "facts").endswith("mono, 44.1 kHz sampling")


@pytest.mark.parametrize("width", [1100, 400])
def test_all_can_be_reached_by_keyboard_and_fits(page, files, width):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        fits = "return document.documentElement.scrollWidth <= innerWidth && innerWidth"
        assert page.execute_script(fits) == width
        choose(page, files["short"])
        assert page.execute_script(fits) == width
        reached, outlined = [], []
        page.execute_script("document.getElementById('file').focus()")
        for _ in range(8):
            state = page.execute_script(
                "const at = document.activeElement, seen = at.id === 'file' ? at.parentNode : at;"
                "return [at.id || at.dataset.signal, parseFloat(getComputedStyle(seen).outlineWidth)]"
            )
            reached.append(state[0])
            outlined.append(state[1])
            press(page, "\ue004")  # Tab
        order = [name for name in reached if name]
        assert {"file", "cutoff", "start", "play", "before", "seek"} <= set(order)
        assert order.index("cutoff") < order.index("start") < order.index("play") < order.index("seek")
        assert min(width for name, width in zip(reached, outlined, strict=True) if name) >= 1
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_control_has_a_name(page, files):
    choose(page, files["short"])
    script = """
    const named = (node) => node.labels?.length || node.getAttribute("aria-label") || node.textContent.trim();
    const nodes = document.querySelectorAll("button, input, select, progress, canvas");
    return [...nodes].filter((node) => !named(node)).map((node) => node.outerHTML);
    """
    assert page.execute_script(script) == []
