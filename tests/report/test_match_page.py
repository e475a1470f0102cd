"""The page of matches: what is written, and what a browser makes of it."""

import json
import re

import numpy as np
import pytest

from kprpe_jax.report.match_page import Candidate, Query, write_match_page
from tests.report.browser import browser, needs_browser

EVIL = "</script><script>document.title='run'</script><img src=x onerror=alert(1)>"


def flow_of(pairs, shape):
    flow = np.zeros(shape)
    for i, j, weight in pairs:
        flow[i, j] = weight
    return flow


@pytest.fixture
def queries(rng):
    """A query of 2 x 3 patches, a candidate with a flow and one of the first stage."""
    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    flow = flow_of([(0, 5, 0.5), (1, 2, 0.25), (1, 3, 0.25)], (6, 6))
    answers = [
        Candidate(
            EVIL, "ann/1.jpg", image[::-1], {"score": 0.75, "cosine": 0.5}, 3, flow,
            np.arange(6.0),
        ),
        Candidate("Bob", EVIL, None, {"cosine": 0.25}, 2),
    ]  # fmt: skip
    return [Query(EVIL, image, (2, 3), answers, weights=np.ones(6), note="a note")]


def data_of(path):
    text = path.read_text()
    (data,) = re.findall(r'id="data">(.*)</script>', text)
    return json.loads(data)


def test_data_are_exact_and_cannot_end_the_script(queries, tmp_path):
    write_match_page(queries, tmp_path / "page.html", title="a <b>")
    text = (tmp_path / "page.html").read_text()
    assert text.count("</script>") == 2  # the data's and the page's own
    assert "onerror=alert" not in text.replace(EVIL.replace("<", "\\u003c"), "")
    assert "<title>a &lt;b&gt;</title>" in text
    assert not re.findall(r"""(src|href)=["']?http""", text)
    (query,) = data_of(tmp_path / "page.html")
    first, second = query["candidates"]
    assert (query["name"], first["person"], second["photo"]) == (EVIL,) * 3
    assert np.reshape(first["flow"], (6, 6))[1].tolist() == [0, 0, 128, 128, 0, 0]
    assert first["weights"] == [0, 51, 102, 153, 204, 255]
    assert (second["image"], second["flow"]) == (None, None)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (dict(grid=(3, 3)), r"shape \(9,\), as the grids say; got \(6,\)"),
        (
            dict(image=np.zeros((4, 4, 3))),
            r"uint8 \[H, W, 3\]; got float64 \(4, 4, 3\)",
        ),
        (dict(weights=np.full(6, np.nan)), "must be finite"),
        (dict(weights=-np.ones(6)), ">= 0"),
    ],
    ids=str,
)
def test_bad_input(queries, tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        write_match_page([queries[0]._replace(**change)], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def colors(cells):
    return [cell.value_of_css_property("background-color") for cell in cells]


@pytest.mark.slow
@needs_browser
def test_in_a_browser(queries, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    empty = queries[0]._replace(name="nobody", candidates=[])
    write_match_page([*queries, empty], tmp_path / "page.html", title="matches")
    with browser() as driver:
        driver.get((tmp_path / "page.html").as_uri())
        find = lambda css, within=driver: within.find_elements(By.CSS_SELECTOR, css)  # noqa: E731

        # Names are text: nothing of them ran or became an element.
        assert driver.title == "matches"
        assert find("h2")[0].text == EVIL
        assert not find("img[onerror]")
        captions = [b.text for b in find("figcaption b")]
        assert captions == [f"1 (was 3). {EVIL}", "2. Bob"]
        assert find(".score")[0].text == "score 0.7500"
        assert find(".missing")[0].text == "photo not at hand"
        assert find("section")[1].text.endswith("No candidates.")

        # At rest the weights are shown; hovering shows where a patch's weight goes.
        query, candidate = (find(".cells", box) for box in find(".face")[:2])
        query, candidate = (find("span", part[0]) for part in (query, candidate))
        alpha = lambda text: float((re.findall(r"([\d.]+)\)$", text) or [1])[0])  # noqa: E731
        assert [round(alpha(c) / 0.85, 1) for c in colors(candidate)] == [
            0, 0.2, 0.4, 0.6, 0.8, 1.0
        ]  # fmt: skip
        ActionChains(driver).move_to_element(query[1]).perform()
        shown = [round(alpha(c), 2) for c in colors(candidate)]
        assert shown == [0, 0, 0.85, 0.85, 0, 0]
        # A click keeps it, a second one lets go; the other way round works, too.
        ActionChains(driver).click(query[1]).move_to_element(query[4]).perform()
        assert [round(alpha(c), 2) for c in colors(candidate)] == shown
        ActionChains(driver).click(query[1]).click(candidate[5]).perform()
        assert [round(alpha(c), 2) for c in colors(query)] == [0.85, 0, 0, 0, 0, 0]
        assert "chosen" in candidate[5].get_attribute("class")
        # The reconstruction: at place 0 patch 5 in full, where nothing goes the dark.
        cells = find(".flow .cells span")
        filters = [c.value_of_css_property("filter") for c in cells]
        bright = [float(re.fullmatch(r"brightness\((.*)\)", f)[1]) for f in filters]
        darkest = [0.15] * 4
        assert bright == pytest.approx([1, 0.15 + 0.85 * 128 / 255, *darkest], abs=1e-3)
        assert cells[0].value_of_css_property("background-position") == "100% 100%"
        errors = [e for e in driver.get_log("browser") if e["level"] == "SEVERE"]
        assert not errors
