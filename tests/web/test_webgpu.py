"""The page where the GPU computes. It is Chromium's in software, so that no GPU is needed: right, and very slow.

Needs what test_page.py needs.
"""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from flashsr_jax.cli import main
from flashsr_jax.weights.store import save_weights

from helpers import RECORDINGS
from helpers.browser import chromium, until
from helpers.micro_model import SPECTRAL, micro_params
from helpers.page import PATIENCE, choose, click, downloaded, page_served, press, restore, shown, text

pytestmark = pytest.mark.slow
SPEECH = RECORDINGS / "speech/kseniya-buraya/belarusian-1.ogg"
SWITCHES = (
    "--enable-unsafe-webgpu",  # the adapter in software, where there is no other
    "--disable-gpu-process-crash-limit",
    "--disable-domain-blocking-for-3d-apis",  # after a GPU was lost
)
SLOW = 3600  # s, for a window of `small`
HAS_ADAPTER = "navigator.gpu.requestAdapter().then((adapter) => arguments[0](Boolean(adapter)))"
STOPPED = "short.wav: the GPU stopped before the recording was restored. The CPU is chosen now: press Restore."
# Where onnxruntime-web lets each node of a graph be computed, in its own words.
PLACEMENTS = """
const [graph, done] = arguments;
const said = [];
for (const level of ["log", "warn", "error", "debug"]) console[level] = (...words) => said.push(words.join(" "));
(async () => {
  const ort = await import("/runtime/ort.webgpu.min.mjs");
  Object.assign(ort.env.wasm, { wasmPaths: `${location.origin}/runtime/`, numThreads: 1 });
  ort.env.logLevel = "verbose";
  const { graphs, window: { frames, samples }, latent } = await (await fetch("model/model.json")).json();
  const file = await (await fetch(`model/${graphs[graph].file}`)).arrayBuffer();
  await ort.InferenceSession.create(new Uint8Array(file), {
    executionProviders: ["webgpu"],
    logSeverityLevel: 0,
    freeDimensionOverrides: { batch: 1, frames, samples, latent_frames: latent.frames },
  });
})().catch((error) => said.push(String(error))).then(() => done(said.filter((line) => /placed on|Error/.test(line))));
"""


@pytest.fixture(scope="module")
def small():
    with page_served() as url:
        yield url


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    """The operators of `small`, and seconds for a window."""
    folder = tmp_path_factory.mktemp("micro")
    model, graphs = folder / "model.safetensors", folder / "graphs"
    save_weights(model, SPECTRAL, micro_params(config=SPECTRAL), {"unet": "student, step 4"})
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["weights", "export", str(model), "--to", "onnx", "-o", str(graphs)]) == 0
    with page_served("--weights", str(graphs)) as url:
        yield url


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """1 s of speech: a window."""
    path = tmp_path_factory.mktemp("files") / "short.wav"
    speech, rate = soundfile.read(SPEECH, dtype="float32")
    soundfile.write(path, soxr.resample(speech, rate, 16_000)[:16_000], 16_000, "PCM_16")
    return path


@pytest.fixture
def downloads(tmp_path) -> Path:
    return tmp_path


@pytest.fixture
def browser(tmp_path_factory, downloads):
    driver = chromium(tmp_path_factory.mktemp("profile"), downloads, *SWITCHES)
    driver.set_script_timeout(PATIENCE)
    yield driver
    driver.quit()


def opened(browser, address: str, file: Path) -> None:
    browser.get(address)
    if not browser.execute_async_script(HAS_ADAPTER):
        pytest.skip("this Chromium has no WebGPU adapter, not even in software")
    choose(browser, file)


def computed_by(browser, processor: str) -> None:
    browser.find_element("css selector", f"#processor option[value={processor}]").click()
    until(lambda: shown(browser, "hint") == (processor == "webgpu"))


def chosen(browser) -> str:
    return browser.find_element("id", "processor").get_property("value")


def decibels(error: np.ndarray, of: np.ndarray) -> float:
    return 20 * np.log10(np.abs(error).max() / np.abs(of).max())


def test_the_gpu_computes_every_operator(browser, small, short):
    for graph in ("encoder", "decoder", "vocoder"):
        opened(browser, small, short)
        (said,) = browser.execute_async_script(PLACEMENTS, graph)
        assert "All nodes placed on [WebGpuExecutionProvider]" in said


def test_the_output_is_that_of_the_cpu(browser, small, short, downloads):
    opened(browser, small, short)
    restore(browser)
    expected = downloaded(browser, downloads, "short-48k.wav", 32)
    computed_by(browser, "webgpu")
    assert text(browser, "hint").startswith("This browser computes WebGPU in software")
    restore(browser, SLOW)
    got = downloaded(browser, downloads, "short-48k.wav", 32)
    assert got.shape == expected.shape
    assert decibels(got - expected, expected) < -60
    assert browser.get_log("browser") == []


def test_cancelling_leaves_a_gpu_that_computes(browser, micro, short):
    opened(browser, micro, short)
    computed_by(browser, "webgpu")
    for moment in ("Preparing", "left"):
        click(browser, "start")
        until(lambda: moment in text(browser, "left"), PATIENCE)  # noqa: B023
        press(browser, "\ue00c")  # Escape
        until(lambda: not shown(browser, "running"), PATIENCE)
        assert not shown(browser, "saving") and not shown(browser, "problem") and shown(browser, "empty")
    restore(browser)
    assert browser.get_log("browser") == []


def test_a_gpu_that_is_lost_leaves_the_cpu_and_comes_back(browser, micro, short):
    opened(browser, micro, short)
    computed_by(browser, "webgpu")
    click(browser, "start")
    until(lambda: "left" in text(browser, "left"), PATIENCE)  # the networks are at work
    browser.execute_cdp_cmd("Browser.crashGpuProcess", {})
    until(lambda: not shown(browser, "running"), PATIENCE)
    assert text(browser, "problem") == STOPPED and chosen(browser) == "wasm"
    assert browser.switch_to.active_element.get_attribute("id") == "start"
    assert shown(browser, "empty") and not shown(browser, "saving")
    restore(browser)
    computed_by(browser, "webgpu")
    restore(browser)
    browser.get_log("browser")  # of the first
    browser.execute_cdp_cmd("Browser.crashGpuProcess", {})  # while nothing computes
    until(lambda: any("no longer exists" in entry["message"] for entry in browser.get_log("browser")))
    restore(browser)
    assert chosen(browser) == "webgpu"


def test_without_a_gpu_the_cpu_computes(tmp_path, micro, short):
    browser = chromium(tmp_path / "profile")
    try:
        browser.get(micro)
        if not browser.execute_script("return Boolean(navigator.gpu)"):
            pytest.skip("this Chromium has no WebGPU at all: the page does not offer it")
        if browser.execute_async_script(HAS_ADAPTER):
            pytest.skip("this Chromium has a WebGPU adapter")
        choose(browser, short)
        browser.find_element("css selector", "#processor option[value=webgpu]").click()
        until(lambda: shown(browser, "problem"))
        assert text(browser, "problem") == "This browser finds no GPU that pages may use: the CPU computes."
        assert chosen(browser) == "wasm"
        restore(browser)
    finally:
        browser.quit()
