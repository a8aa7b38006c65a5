"""A browser for tests of pages: chromium without a window and without a network."""

import contextlib
import os
import shutil

from debian import need


@contextlib.contextmanager
def open_browser(home, *, width=1200, height=1600, dark=False, offline=True):
    """Give a browser, with a window of this size; those of phones are true to it, too.

    It has no network. With offline=False it reaches this machine, and no name but that of it.
    """
    need({"chromium": "chromium", "chromedriver": "chromium-driver"})
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    if not offline:
        options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"), env=os.environ | {"HOME": str(home)})
    with webdriver.Chrome(options, service) as browser:
        if offline:
            browser.set_network_conditions(offline=True, latency=0, throughput=0)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield browser
