"""Synthetic people through real weights to a page in a real browser.

KPRPE_SCREENSHOTS=docs/figures keeps the picture.
"""

import os
import pathlib

import pytest
from PIL import Image

from kprpe_jax.commands.main import main
from kprpe_jax.data.synthetic.source import FaceSource
from tests.commands.test_verify import WEIGHTS, needs_data
from tests.report.browser import browser, needs_browser

PEOPLE, PHOTOS = 8, 3


def write_people(folder):
    """A folder per synthetic person; the last photo of each is a query."""
    source = FaceSource(num_identities=PEOPLE, images_per_identity=PHOTOS, seed=3)
    for row in range(len(source)):
        person, number = divmod(row, PHOTOS)
        kind = "queries" if number == PHOTOS - 1 else f"people/person {person}"
        path = folder / kind / f"{person}-{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source[row]["image"]).save(path)


@pytest.mark.slow
@needs_browser
@needs_data
def test_hovering_shows_the_flow(tmp_path, capsys):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    write_people(tmp_path)
    network = [
        f"--gallery={tmp_path / 'people.gallery'}",
        f"--model=mobilefacenet:{WEIGHTS}",
    ]
    main(["enroll", *network, f"--photos={tmp_path / 'people'}"])
    page = tmp_path / "why.html"
    main(
        [
            "explain",
            *network,
            f"--photos={tmp_path / 'queries'}",
            f"--gallery-photos={tmp_path / 'people'}",
            f"--page={page}",
            "--weighting=apc",
        ]
    )
    assert f"{PEOPLE} faces explained, 0 photos" in capsys.readouterr().out
    with browser(width=1160, height=820) as driver:
        driver.get(page.as_uri())
        sections = driver.find_elements(By.CSS_SELECTOR, "section")
        assert len(sections) == PEOPLE
        faces = sections[0].find_elements(By.CSS_SELECTOR, ".face:not(.flow)")
        assert len(faces) == 1 + 5
        cells = faces[0].find_elements(By.CSS_SELECTOR, ".cells span")
        assert len(cells) == 7 * 6
        ActionChains(driver).click(cells[8]).perform()
        shown = faces[1].find_elements(By.CSS_SELECTOR, ".cells span")
        colors = {c.value_of_css_property("background-color") for c in shown}
        assert len(colors) > 1
        picture = pathlib.Path(os.environ.get("KPRPE_SCREENSHOTS", tmp_path))
        driver.save_screenshot(str(picture / "match_page.png"))
        assert not [e for e in driver.get_log("browser") if e["level"] == "SEVERE"]
