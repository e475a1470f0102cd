"""Study sheets of synthetic people through real weights in a real browser.

KPRPE_SCREENSHOTS=docs/figures keeps the pictures.
"""

import io
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from experiments.deepface_emd.reranking_features import load_photo_recognizer
from experiments.deepface_emd.reranking_photos import Photos
from experiments.face_vit.pair_data import alter, embed_images
from experiments.face_vit.pair_pictures import study_sheets
from kprpe_jax.data.synthetic.source import FaceSource
from kprpe_jax.matching.explanations import cross_correlation
from kprpe_jax.report.user_study import write_study_page
from tests.commands.test_verify import WEIGHTS, needs_data
from tests.report.browser import browser, needs_browser

PEOPLE = 6


def drawn_photos():
    """Two photos of each person."""
    source = FaceSource(
        num_identities=PEOPLE, images_per_identity=2, seed=5, difficulty=0.4
    )
    rows = source.__getitems__(range(2 * PEOPLE))
    encoded = []
    for row in rows:
        file = io.BytesIO()
        Image.fromarray(row["image"]).save(file, "png")
        encoded.append(file.getvalue())
    keypoints = np.stack([row["keypoints"] for row in rows])
    return Photos(encoded, keypoints, np.arange(2 * PEOPLE) // 2, np.arange(2 * PEOPLE))


@pytest.mark.slow
@needs_browser
@needs_data
def test_sheets_of_synthetic_people(tmp_path):
    from selenium.webdriver.common.by import By

    photos, network = drawn_photos(), load_photo_recognizer(f"mobilefacenet:{WEIGHTS}")
    ones, others = np.arange(0, 2 * PEOPLE, 2), np.arange(1, 2 * PEOPLE, 2)
    others[1::2] = np.roll(others[1::2], 1)  # every other pair shows two people
    worn = alter(photos.select(ones), "sunglasses")
    first = embed_images(worn, network, tmp_path / "first")
    second = embed_images(photos.select(others), network, tmp_path / "second")
    same = first.labels == second.labels
    assert same.tolist() == [True, False] * 3
    # Sunglasses are dark and lie over the eyes.
    plain = embed_images(photos.select(ones), network, tmp_path / "plain").pixels
    darker = (first.pixels < plain / 2).all(-1)
    assert darker[:, 40:65].mean() > 0.2
    assert darker[:, 90:].mean() < 0.02

    heats = {"C": cross_correlation(first.patches, second.patches)}
    pairs = study_sheets(first, second, same, heats)
    assert [pair.method for pair in pairs] == ["none", "C", "D"] * 2
    shapes = [None, (112, 192, 3), (112, 96, 3)] * 2
    assert [None if p.explanation is None else p.explanation.shape for p in pairs] == (
        shapes
    )
    page = tmp_path / "study.html"
    write_study_page(pairs[1:3], pairs[3:], page, study="synthetic", seed=1)
    folder = pathlib.Path(os.environ.get("KPRPE_SCREENSHOTS", tmp_path))
    with browser(width=760, height=560) as driver:
        find = lambda css: driver.find_elements(By.CSS_SELECTOR, css)  # noqa: E731
        driver.get(page.as_uri())
        assert len(find(".pair img")) == 2 * 3
        driver.save_screenshot(str(folder / "study_examples.png"))
        find(".start")[0].click()
        while len(find(".pair img")) == 2:
            find(".no")[0].click()  # the pair without explanation
        driver.save_screenshot(str(folder / "study_question.png"))
        while find(".yes"):
            find(".yes")[0].click()
        assert len(find("tr")) >= 3
        assert not [e for e in driver.get_log("browser") if e["level"] == "SEVERE"]
