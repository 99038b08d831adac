"""The page in a real browser, where there is one."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from mmjax.evaluate.report import write_report

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(_BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the PATH")

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
_PAPER = {"light": (253, 253, 252), "dark": (22, 22, 21)}

# The report stands in a frame, as its own policy lets no script run in it; the frame's parent looks at it.
_HARNESS = """<!doctype html><iframe width="%(width)d" height="800" style="border: 0"></iframe><output></output><script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument;
  const images = [...page.images];
  document.querySelector("output").textContent = JSON.stringify({
    images: images.length,
    broken: images.filter(image => !(image.complete && image.naturalWidth > 0)).length,
    lost: [...page.querySelectorAll("a")].filter(a => !page.querySelector(a.getAttribute("href"))).length,
    figures: [...page.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().width),
    overflow: page.documentElement.scrollWidth - %(width)d,
    heat: page.querySelector(".heat").getBoundingClientRect().width,
    pixelated: getComputedStyle(images[0]).imageRendering,
    scripts: page.scripts.length,
  });
};
frame.srcdoc = %(html)s;
</script>"""


@pytest.fixture
def report(workdir, encoders, params, data):
    return write_report(workdir, encoders=encoders, params=params, data=data, step=10)


def browse(profile, *arguments):
    command = [_BROWSER, *_FLAGS, f"--user-data-dir={profile}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("width", [360, 1280])
def test_everything_is_there_and_fits_the_width(report, tmp_path, width):
    html = json.dumps(report.read_text(encoding="utf-8")).replace("</", "<\\/")
    harness = tmp_path / "harness.html"
    harness.write_text(_HARNESS % {"width": width, "html": html}, encoding="utf-8")
    dom = browse(tmp_path / "profile", f"--window-size={width + 40},900", "--dump-dom", harness.as_uri())
    seen = json.loads(dom.split("<output>")[1].split("</output>")[0])
    assert seen["images"] > 8 * 6
    assert seen["broken"] == seen["lost"] == seen["scripts"] == 0
    assert len(seen["figures"]) == 7
    assert min(seen["figures"]) > 250
    assert seen["heat"] > 250
    assert seen["overflow"] <= 0
    assert seen["pixelated"] == "pixelated"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_wears_the_readers_theme_and_shows_its_pictures(report, tmp_path, theme):
    shot = tmp_path / "shot.png"
    setting = f"--blink-settings=preferredColorScheme={['dark', 'light'].index(theme)}"
    browse(tmp_path / "profile", setting, "--window-size=800,6000", f"--screenshot={shot}", report.as_uri())
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert tuple(pixels[2, 2]) == _PAPER[theme]
    for colour in ((255, 0, 0), (0, 255, 255), (255, 0, 255)):
        assert (pixels == colour).all(axis=-1).sum() > 5000
