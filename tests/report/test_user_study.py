"""The pages of a user study: written, answered in a browser, scored."""

import json
import re
import time

import numpy as np
import pytest

from kprpe_jax.report.user_study import StudyPair, score_answers, write_study_page
from tests.report.browser import browser, needs_browser

METHODS = ("none", "flow", "<b>heat</b>")


@pytest.fixture
def pairs(rng):
    made = []
    for number in range(9):
        faces = rng.integers(0, 256, (2, 8, 6, 3), np.uint8)
        method = METHODS[number % 3]
        explanation = None if method == "none" else faces[0]
        made.append(StudyPair(method, *faces, explanation, number % 2 == 0))
    return made


def data_of(path):
    (data,) = re.findall(r'id="data">(.*)</script>', path.read_text())
    return json.loads(data)


def test_every_pair_once_in_an_order_of_the_seed(pairs, tmp_path):
    numbers = []
    for seed in (0, 1):
        path = tmp_path / f"{seed}.html"
        write_study_page(pairs[:2], pairs, path, study="s", seed=seed)
        data = data_of(path)
        assert len(data["examples"]) == 2
        for shown in data["pairs"]:
            pair = pairs[shown["number"]]
            assert (shown["method"], shown["same"]) == (pair.method, pair.same)
            assert (shown["explanation"] is None) == (pair.method == "none")
        numbers.append([shown["number"] for shown in data["pairs"]])
    assert sorted(numbers[0]) == sorted(numbers[1]) == list(range(9))
    assert numbers[0] != numbers[1]
    with pytest.raises(ValueError, match="there must be pairs to ask for; got none"):
        write_study_page(pairs, [], tmp_path / "x.html", study="s")


def saved(path, answers, study="s"):
    rows = [dict(method=m, same=s, answer=a) for m, s, a in answers]
    path.write_text(json.dumps({"study": study, "answers": rows}))
    return path


def test_scores_of_several_people(tmp_path):
    one = saved(tmp_path / "1.json", [("flow", True, True), ("none", True, False)])
    two = saved(tmp_path / "2.json", [("flow", False, True), ("flow", False, False)])
    scores = score_answers([one, two])
    assert list(scores) == ["flow", "none"]
    assert scores["flow"][:3] == (2, 3, 2 / 3)
    # Wilson's interval of 2 of 3, by hand.
    np.testing.assert_allclose(scores["flow"][3:], (0.2077, 0.9385), atol=1e-4)
    assert scores["none"].accuracy == 0
    other = saved(tmp_path / "3.json", [("flow", True, True)], study="t")
    with pytest.raises(ValueError, match="one study, 's'; got 't' in .*3.json"):
        score_answers([one, other])
    for text in ("{", "[]", '{"study": "s", "answers": [3]}'):
        (tmp_path / "4.json").write_text(text)
        with pytest.raises(ValueError, match="4.json must be a file that the page"):
            score_answers([one, tmp_path / "4.json"])


@pytest.mark.slow
@needs_browser
def test_answered_in_a_browser(pairs, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    write_study_page(pairs[:5], pairs, tmp_path / "study.html", study="s", seed=2)
    asked = data_of(tmp_path / "study.html")["pairs"]
    with browser() as driver:
        find = lambda css: driver.find_elements(By.CSS_SELECTOR, css)  # noqa: E731
        driver.get((tmp_path / "study.html").as_uri())
        truths = [truth.text.removeprefix("Same person: ") for truth in find(".truth")]
        assert truths == ["yes", "no", "yes", "no", "yes"]
        find(".start")[0].click()
        for place, pair in enumerate(asked):
            assert find(".progress")[0].text == f"Pair {place + 1} of 9"
            explained = pair["explanation"] is not None
            assert len(find(".pair img")) == 2 + explained
            if place == 4:  # a reload goes on where it was
                driver.refresh()
                WebDriverWait(driver, 20).until(lambda _: find(".progress"))
                assert find(".progress")[0].text == "Pair 5 of 9"
            # Right about the explained pairs, wrong about the others.
            find(".yes" if pair["same"] == explained else ".no")[0].click()
        rows = {
            tuple(cell.text for cell in row.find_elements(By.TAG_NAME, "td"))
            for row in find("tr")
        }
        assert rows == {
            ("none", "0 of 3", "0.0 %"),
            ("flow", "3 of 3", "100.0 %"),
            ("<b>heat</b>", "3 of 3", "100.0 %"),
        }
        driver.execute_cdp_cmd(
            "Browser.setDownloadBehavior",
            {"behavior": "allow", "downloadPath": str(tmp_path)},
        )
        find(".save")[0].click()
        answers = tmp_path / "answers-2.json"
        for _ in range(100):
            if answers.exists():
                break
            time.sleep(0.1)
        scores = score_answers([answers])
        assert {name: (s.right, s.count) for name, s in scores.items()} == {
            "none": (0, 3), "flow": (3, 3), "<b>heat</b>": (3, 3),
        }  # fmt: skip
        find(".again")[0].click()
        assert find(".start")
        assert not [e for e in driver.get_log("browser") if e["level"] == "SEVERE"]
