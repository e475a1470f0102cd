"""Identification as a page: by the command, with a network of two layers."""

import json
import re

import numpy as np
import pytest

from kprpe_jax.gallery import explain, identify
from tests.gallery.test_commands import (  # noqa: F401
    call,
    enrolled,
    fails,
    folder,
    network,
    photo,
)


def page_of(path):
    (data,) = re.findall(r'id="data">(.*)</script>', path.read_text())
    return json.loads(data)


def test_the_page_says_what_identify_says(folder, capsys):  # noqa: F811
    enrolled(folder)
    (folder / "new").mkdir()
    (folder / "new" / "x.png").write_bytes(photo(1, 7))
    (folder / "new" / "y.png").write_bytes(b"no photo")
    output, page = folder / "answers.json", folder / "why.html"
    call(identify.main, folder, f"--photos={folder / 'new'}", f"--output={output}")
    call(
        explain.main,
        folder,
        f"--photos={folder / 'new'}",
        f"--gallery_photos={folder / 'photos'}",
        f"--page={page}",
        "--ranks=3",
    )
    assert "1 photos explained, 1 without a face" in capsys.readouterr().out
    (query,) = page_of(page)
    answers = json.loads(output.read_text())[0]["answers"]
    assert query["grid"] == query["candidateGrid"] == [2, 1]
    assert len(query["candidates"]) == 3
    by_cosine = sorted(answers, key=lambda answer: -answer["cosine"])
    for shown, answer in zip(query["candidates"], answers, strict=False):
        assert (shown["person"], shown["photo"]) == (answer["person"], answer["photo"])
        assert dict(shown["scores"]) == {
            name: answer[name] for name in ("score", "cosine", "patches")
        }
        assert by_cosine[shown["firstRank"] - 1]["photo"] == answer["photo"]
        assert shown["image"].startswith("data:image/jpeg")
    # Uniform weights: all of a patch arrives, so rows and columns are equal.
    flow = np.reshape(query["candidates"][0]["flow"], (2, 2)).astype(float)
    np.testing.assert_allclose(flow.sum(0), flow.sum(1), atol=2)


def test_without_pictures_or_patches(folder, capsys):  # noqa: F811
    enrolled(folder, "--patches=none")
    page = folder / "why.html"
    photos = f"--photos={folder / 'photos' / 'bob' / '0.png'}"
    call(explain.main, folder, photos, f"--page={page}")
    (query,) = page_of(page)
    first = query["candidates"][0]
    assert first["photo"] == "bob/0.png"
    assert first["image"] is first["flow"] is first["firstRank"] is None
    bad = fails(capsys, call, explain.main, folder, photos, f"--page={page}",
                f"--gallery_photos={folder / 'nowhere'}")  # fmt: skip
    assert "must be the folder that was enrolled" in bad
    assert "needs --photos" in fails(
        capsys, call, explain.main, folder, f"--page={page}"
    )


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname"])
def test_names_do_not_lead_out_of_the_folder(tmp_path, name):
    (tmp_path / "photos").mkdir()
    (tmp_path / "outside.png").write_bytes(photo(0, 0))
    answer = {"person": "x", "photo": name, "score": 1.0, "cosine": 1.0,
              "patches": None}  # fmt: skip
    read = []

    def prepare(encoded):
        read.append(encoded)
        return "not looked at"

    found = explain._candidate(answer, {name: None}, None, tmp_path / "photos", prepare)
    assert found.image is None
    assert not read
