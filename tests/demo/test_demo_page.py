"""The page in a browser: a picture is dropped, the networks work, the slider is moved."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from demo_site import Site, picture, png

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    not (DRIVER and BROWSER), reason="chromium and chromedriver are not installed"
)
FLAGS = "headless no-sandbox disable-gpu disable-background-networking disable-component-update disable-sync"
# what a browser does when a file is dropped, which a driver can't drag out of a folder
DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], arguments[1]));
document.getElementById("drop").dispatchEvent(
  new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: data }));
"""


class Page:
    """The page, as its visitor sees it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def __getitem__(self, name: str) -> Any:
        return self.driver.find_element("css selector", name)

    def drop(self, content: bytes, name: str) -> None:
        self.driver.execute_script(DROP, base64.b64encode(content).decode(), name)

    def wait(self, name: str, text: str) -> None:
        WebDriverWait(self.driver, 60).until(lambda _: text in self[name].text, f"no {text!r} in {name}")

    def number(self, script: str) -> float:
        return float(self.driver.execute_script(f"return {script}"))


@pytest.fixture
def page(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setenv("SE_OFFLINE", "true")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for flag in FLAGS.split():
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        driver.get(site.address)
        yield Page(driver)
    finally:
        driver.quit()


def test_a_dropped_picture_is_compared_by_a_slider(page):
    assert not page["#result"].is_displayed()
    page.drop(b"no picture", "letter.txt")
    page.wait("#error", "letter.txt: Image upload can't be decoded")
    assert not page["#progress"].is_displayed()
    page.driver.get_log("browser")  # which has the refusal

    page.drop(png(picture(48, 32)), "house.png")
    page.wait("#status", "house.png is translated.")
    assert page["#error"].text == ""
    for role in ("source", "teacher", "student"):
        assert page.number(f"document.querySelector('#{role} img').naturalWidth") == 48
    for role in ("teacher", "student"):
        assert page[f"#{role} figcaption"].text.split()[2] in ("ms", "s")
        assert page[f"#{role} a"].get_attribute("download") == f"house_{role}.png"
    assert float(page["#speed"].text[:-1]) > 0

    slider = page["#slider"]
    slider.send_keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert slider.get_attribute("aria-valuetext") == "1 percent teacher, the rest student"
    assert page.driver.execute_script("return getComputedStyle(right).clipPath") == "inset(0px 0px 0px 1%)"
    page["[value=source]"].click()
    assert page["#left"].get_attribute("src") == page["#source img"].get_attribute("src")

    page["[data-sample='0']"].click()
    page.wait("#status", "first.png is translated.")
    assert page["#speed-detail"].text == "median of your last 2 pictures"
    assert page.driver.get_log("browser") == []  # nor has the policy refused anything
    for width in (1200, 390):
        page.driver.set_window_size(width, 800)
        assert page.number("document.documentElement.scrollWidth - innerWidth") <= 0
