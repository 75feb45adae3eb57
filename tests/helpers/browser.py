"""A headless Chromium, where it and its driver are installed (Debian: `apt-get install chromium chromium-driver`)."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)

# Listens at the output of the page's `player`: windows of 43 ms, taken every 8 ms, so that they overlap and nothing is
# missed. The first is taken once the analyser is full: it starts out empty.
LISTEN = """
const analyser = new AnalyserNode(player.context, { fftSize: 2048 });
player.output.connect(analyser);
window.heard = [];
const listen = () => {
  const x = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(x);
  heard.push(x);
  window.listening = setTimeout(listen, 8);
};
setTimeout(listen, 150);
"""

# Of what was heard: the quietest 4 ms, the greatest step from one value to the next, and the loudest value.
MEASURE = """
clearTimeout(listening);
let quietest = Infinity, step = 0, peak = 0;
for (const x of heard) {
  for (let start = 0; start + 192 <= x.length; start += 96) {
    let power = 0;
    for (let i = start; i < start + 192; i++) power += x[i] ** 2 / 192;
    quietest = Math.min(quietest, Math.sqrt(power));
  }
  for (let i = 1; i < x.length; i++) step = Math.max(step, Math.abs(x[i] - x[i - 1]));
  for (const value of x) peak = Math.max(peak, Math.abs(value));
}
return { windows: heard.length, quietest, step, peak };
"""


def chromium(profile: Path, downloads: Path | None = None, *switches: str):
    """A driver of a new browser, which keeps its console; the test is skipped where there is none."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (pip install -e .[test])")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in (*OPTIONS, *switches, f"--user-data-dir={profile}"):
        options.add_argument(option)
    if downloads:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
