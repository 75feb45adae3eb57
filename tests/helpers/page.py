"""The page of `flashsr web`, served and worked as a user does."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flashsr_jax.files import cache_folder
from flashsr_jax.web import runtime

from helpers.browser import until
from helpers.served import served

PATIENCE = 300  # s, for the networks, on a machine that others use


@contextlib.contextmanager
def page_served(*options: str) -> Iterator[str]:
    """Its address; the test is skipped where what `flashsr web` needs is not there."""
    pytest.importorskip("onnx")
    if not (cache_folder() / "web" / f"onnxruntime-web-{runtime.VERSION}" / runtime.FILES[-1]).is_file():
        pytest.skip("needs onnxruntime-web, which `flashsr web` fetches at its first start")
    command = [sys.executable, "-m", "flashsr_jax", "web", "--port", "0", "--no-open", *options]
    with served(command) as (_, url):
        yield url


def shown(page, id_: str) -> bool:
    return page.find_element("id", id_).is_displayed()


def text(page, id_: str) -> str:
    return page.find_element("id", id_).text


def click(page, id_: str) -> None:
    page.find_element("id", id_).click()


def press(page, key: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(page).send_keys(key).perform()


def choose(page, file: Path) -> None:
    page.find_element("id", "file").send_keys(str(file))
    until(lambda: shown(page, "settings") or shown(page, "problem"), 60)


def restore(page, patience: float = PATIENCE) -> float:
    """Seconds that it took."""
    start = time.monotonic()
    click(page, "start")
    until(lambda: not shown(page, "running"), patience)
    assert not shown(page, "problem"), text(page, "problem")
    assert shown(page, "saving")
    return time.monotonic() - start


def downloaded(page, folder: Path, name: str, bits: int) -> np.ndarray:
    """(C, N) of what the page gives to keep."""
    (folder / name).unlink(missing_ok=True)
    page.find_element("css selector", f"#bits option[value='{bits}']").click()
    click(page, "save")
    until((folder / name).is_file, 60)
    x_NxC, rate = soundfile.read(folder / name, dtype="float32", always_2d=True)
    assert rate == 48000
    return x_NxC.T
