"""Names of images with endings, folders and letters written in several ways."""

import pytest

from kprpe_jax.data.keys import match_keys, plain_key, top_folder


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a/b.jpg", "a/b"),
        ("./a/b.JPEG.png", "a/b"),
        ("a\\b.webp", "a/b"),
        ("a/v1.2", "a/v1.2"),
        ("a/e\u0301.png", "a/\u00e9"),
    ],
)
def test_plain_names(name, plain):
    assert plain_key(name) == plain


def test_top_folders():
    assert top_folder(["lfw/a/1", "lfw/b/2"]) == "lfw/"
    assert top_folder(["a/1", "b/2"]) == ""
    assert top_folder(["a/1", "a/2"]) == ""  # one person, not a folder of people
    assert top_folder(["1", "lfw/a/1"]) == ""
    assert top_folder([]) == ""


def test_names_are_found_in_each_form():
    keys = ["lfw/a/a_1.jpg.png", "lfw/b/b_1.jpg.png", "lfw/b/b_2.jpg"]
    assert match_keys(keys, ["lfw/b/b_2.jpg", "a/a_1.jpg", "b/b_1"]) == [2, 0, 1]
    assert match_keys(keys, ["c/c_1.jpg"]) == [None]
    assert match_keys(["a/1.jpg"], ["./top/a/1.jpg", "top/b/1.jpg"]) == [0, None]


def test_a_name_that_fits_two_images_fits_none():
    assert match_keys(["a/1.jpg", "a/1.png"], ["a/1"]) == [None]
    assert match_keys(["a/1.jpg", "a/1.png"], ["a/1.png"]) == [1]
