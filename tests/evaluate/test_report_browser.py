"""The report in a browser: it opens from a file, plays, switches without a gap, and keeps the blind test's secret.

Runs wherever Chromium and its driver are installed (Debian: `apt-get install chromium chromium-driver`).
"""

import math
import time

import pytest

from flashsr_jax.evaluate.report.page import write_report

from helpers.browser import LISTEN, MEASURE, chromium, until
from helpers.synthetic_results import TONES_HZ, synthetic_results

# The pitch that is heard, by counting rising zero crossings between the first and the last.
PITCH = """
const analyser = new AnalyserNode(player.context, { fftSize: 8192 });
player.output.connect(analyser);
const done = arguments[0];
setTimeout(() => {
  const x = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(x);
  const rises = [];
  for (let i = 1; i < x.length; i++) if (x[i - 1] < 0 && x[i] >= 0) rises.push(i);
  player.output.disconnect(analyser);
  done(rises.length > 1 ? 48000 * (rises.length - 1) / (rises.at(-1) - rises[0]) : 0);
}, 230);
"""


# All that a blind test shows but what moves (time, count), attributes included.
LOOK = """
const look = document.getElementById("listen").cloneNode(true);
look.querySelectorAll("#time, #seek, #tally, [hidden]").forEach((node) => node.remove());
return document.title + look.innerHTML;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = chromium(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    return write_report(synthetic_results(), tmp_path_factory.mktemp("report")).as_uri()


@pytest.fixture
def page(browser, address):
    browser.get_log("browser")
    browser.get(address)
    until(lambda: browser.execute_script("return player.duration > 0 && !document.getElementById('play').disabled"))
    yield browser
    assert browser.get_log("browser") == []  # errors, refused loads, warnings


def click(page, id_: str) -> None:
    page.find_element("id", id_).click()


def press(page, key: str) -> None:
    page.switch_to.active_element.send_keys(key)


def shown(page, id_: str) -> bool:
    return page.find_element("id", id_).is_displayed()


def position(page) -> float:
    return page.execute_script("return player.position")


def pitch(page) -> float:
    return page.execute_async_script(PITCH)


def pressed(page) -> list[str]:
    return page.execute_script(
        "return [...document.querySelectorAll('[data-signal][aria-pressed=true]')].map((b) => b.dataset.signal)"
    )


@pytest.mark.training
def test_it_loads_nothing_and_shows_every_part(page):
    assert (
        page.execute_script(
            "return performance.getEntriesByType('resource').filter((e) => !e.name.startsWith('data:')).length"
        )
        == 0
    )
    for section in ("settings", "scores", "paired", "plots", "speed", "listen"):
        assert shown(page, section)
    assert page.execute_script("return [...document.images].every((i) => i.complete && i.naturalWidth > 100)")


@pytest.mark.training
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("mode", ["mode-open", "mode-blind"])
def test_the_page_is_no_wider_than_the_window(page, width, mode):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        click(page, mode)
        for box in page.find_elements("css selector", "#table-metrics input:not(:checked)"):
            box.click()
        page.execute_script("document.querySelector('details').open = true")
        assert page.execute_script("return innerWidth") == width
        assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.training
def test_tables_follow_the_choices(page):
    def cells(table: str) -> list[list[str]]:
        return page.execute_script(
            f"return [...document.querySelectorAll('#{table} tbody tr:not(.group)')]"
            ".map((row) => [...row.cells].map((cell) => cell.textContent))"
        )

    every = cells("table-every")
    assert len(every) == 5 * 2 and len(every[0]) == 2 + 4
    bold = "return [...document.querySelectorAll('#table-every .best')].map((c) => c.parentNode.cells[0].textContent)"
    assert page.execute_script(bold) == ["flashsr_jax base"] * 8
    assert cells("table-wall-free")[0][2] != every[0][2]
    page.find_element("css selector", "#table-metrics input:not(:checked)").click()
    page.find_element("css selector", "#table-cutoff option:last-child").click()
    assert len(cells("table-every")) == 5 and len(cells("table-every")[0]) == 2 + 5


@pytest.mark.training
def test_a_pair_in_the_other_order_changes_its_sign(page):
    def pair(a: int, b: int) -> tuple[float, int, str]:
        page.find_element("css selector", f"#pair-a option[value='{a}']").click()
        page.find_element("css selector", f"#pair-b option[value='{b}']").click()
        difference, worse = page.find_elements("css selector", "#pair-rows tr:first-child td")
        worst = page.find_element("id", "pair-worst").text.splitlines()
        return (
            float(difference.text.split()[0].replace("−", "-")),
            int(worse.text.split()[0]),
            worst[0] if worst else "",
        )

    gain, got_worse, _ = pair(4, 0)  # the best system minus the unprocessed
    assert gain == pytest.approx(-1.7, abs=0.2) and got_worse == 0
    assert pair(0, 4) == (-gain, 10, "Worst by lsd")
    page.find_element("css selector", "#pair-b option[value='0']").click()
    assert shown(page, "no-pair") and not shown(page, "pair")


@pytest.mark.training
def test_play_moves_the_time_and_sounds(page):
    height = "return document.documentElement.scrollHeight"
    stopped_height = page.execute_script(height)
    click(page, "play")
    until(lambda: position(page) > 0.3)
    assert page.execute_script(height) == stopped_height  # though the plots are not drawn now
    assert pitch(page) == pytest.approx(TONES_HZ["original"], rel=0.02)
    left = "return document.querySelector('.clip:not([hidden]) .playhead').getBoundingClientRect().left"
    before, shown_time = page.execute_script(left), page.find_element("id", "time").text
    until(lambda: page.execute_script(left) != before)
    until(lambda: page.find_element("id", "time").text != shown_time)
    click(page, "play")
    stopped = position(page)
    time.sleep(0.1)
    assert position(page) == stopped


@pytest.mark.training
def test_switching_keeps_the_time_and_is_never_silent_nor_clicks(page):
    click(page, "play")
    until(lambda: position(page) > 0.2)
    page.execute_script(LISTEN)
    until(lambda: page.execute_script("return heard.length > 0"))
    for key in "2341" * 3:
        before, start = position(page), time.monotonic()
        press(page, key)
        moved = (position(page) - before) % 2.0
        assert moved <= time.monotonic() - start + 0.05
        time.sleep(0.04)
    heard = page.execute_script(MEASURE)
    assert heard["windows"] > 40
    assert heard["quietest"] > 0.05  # of an RMS of 0.28
    assert heard["peak"] < 0.45
    steepest = 0.4 * 2 * math.pi * max(TONES_HZ.values()) / 48_000
    assert heard["step"] < 1.2 * steepest  # a switch without a fade would reach 0.8
    assert pressed(page) == ["original"]


@pytest.mark.training
def test_loop_seek_and_end(page):
    click(page, "loop")
    page.execute_script("player.seek(1.7)")
    click(page, "play")
    until(lambda: page.execute_script("return player.playing"))
    until(lambda: page.execute_script("return !player.playing"))  # the end
    assert position(page) == 0
    click(page, "loop")
    page.execute_script("player.seek(1.7); player.play()")
    until(lambda: position(page) < 1)
    assert page.execute_script("return player.playing")
    view = page.find_elements("css selector", ".clip:not([hidden]) .view")[2]
    view.click()  # its middle
    assert position(page) == pytest.approx(1.0, abs=0.3)
    assert pitch(page) == pytest.approx(TONES_HZ["FlashSR, published"], rel=0.02)


@pytest.mark.training
def test_keys_play_and_switch(page):
    press(page, " ")
    until(lambda: page.execute_script("return player.playing"))
    press(page, "3")
    assert pressed(page) == ["FlashSR, published"]
    assert pitch(page) == pytest.approx(TONES_HZ["FlashSR, published"], rel=0.02)
    press(page, "9")  # there are four
    assert pressed(page) == ["FlashSR, published"]
    press(page, " ")
    until(lambda: not page.execute_script("return player.playing"))


@pytest.mark.training
def test_another_clip_is_another_panel(page):
    click(page, "next")
    until(lambda: page.execute_script("return player.duration > 0"))
    assert page.find_element("id", "clip").get_attribute("value") == "1"
    assert [panel.is_displayed() for panel in page.find_elements("css selector", ".clip")] == [False, True, False]


@pytest.mark.training
def test_the_blind_test_counts_and_tells_nothing(page):
    click(page, "mode-blind")
    click(page, "start")
    for hidden in ("open", "signals", "setup", "picker"):
        assert not shown(page, hidden)
    press(page, " ")
    tones = {}
    for name in ("A", "B"):
        press(page, name.lower())
        assert pressed(page) == [name]
        tones[name] = pitch(page)
    expected = [TONES_HZ["original"], TONES_HZ["FlashSR, published"]]
    assert sorted(tones.values()) == pytest.approx(expected, rel=0.03)
    right = trials = 0
    answers, looks = set(), set()
    for is_right in (True, True, False, True, True, False, *[True] * 6):
        press(page, "x")
        assert pressed(page) == ["X"]
        heard = pitch(page)
        x = min(tones, key=lambda name: abs(tones[name] - heard))
        assert heard == pytest.approx(tones[x], rel=0.03)
        other = "B" if x == "A" else "A"
        answers.add(x)
        looks.add(page.execute_script(LOOK))
        button = page.find_element("id", f"x-is-{(x if is_right else other).lower()}")
        page.execute_script("arguments[0].click()", button)  # without the driver's half a second of a mouse
        right, trials = right + is_right, trials + 1
        p = sum(math.comb(trials, k) for k in range(right, trials + 1)) / 2**trials
        shown_right, _, shown_trials, _, _, _, shown_p = page.find_element("id", "tally").text.split()
        assert (int(shown_right), int(shown_trials)) == (right, trials)
        assert float(shown_p) == pytest.approx(p, abs=6e-4)
    assert answers == {"A", "B"}  # misses one of them once in 2048 runs
    assert len(looks) == 1  # the same whatever X is
    assert not any(name in look for look in looks for name in TONES_HZ)
    click(page, "reset")
    assert shown(page, "setup") and not shown(page, "trial")
    click(page, "start")
    assert page.find_element("id", "tally").text == "No answers yet"


@pytest.mark.training
def test_the_blind_test_refuses_equal_signals(page):
    click(page, "mode-blind")
    page.find_element("css selector", "#second option:first-child").click()
    click(page, "start")
    assert shown(page, "same") and not shown(page, "trial")
