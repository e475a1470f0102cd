import numpy as np
import pytest

from kprpe_jax.data.importers.pair_list import read_lfw_pairs, tables

LIST = """2\t1
Ann\t1\t2
Ann\t1\tBob\t3
Bob\t3\t12
Cid\t1\tBob\t12
"""


def test_list(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text(LIST)
    pairs = read_lfw_pairs(path)
    assert pairs.keys.tolist() == [
        ["Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg"],
        ["Ann/Ann_0001.jpg", "Bob/Bob_0003.jpg"],
        ["Bob/Bob_0003.jpg", "Bob/Bob_0012.jpg"],
        ["Cid/Cid_0001.jpg", "Bob/Bob_0012.jpg"],
    ]
    np.testing.assert_array_equal(pairs.same, [True, False, True, False])
    assert pairs.num_folds == 2
    assert set(tables(pairs)) == {"pair_keys", "pair_same", "pair_folds"}


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("2\t1\n", "2\t2\n", "must have 8 pairs as its first line says; got 4"),
        ("2\t1\n", "Ann\t1\n", "must begin with the number of folds .* got 'Ann 1'"),
        (LIST, "", "must begin with the number of folds .* got ''"),
        ("Bob\t3\t12", "Bob\tx\t12", "line 4 of .* got 'Bob x 12'; repair"),
        ("Bob\t3\t12", "Bob\t3", "line 4 of .* got 'Bob 3'"),
        ("Bob\t3\t12", "Bob\t3\t03", "line 4 of .* two images of .* got 'Bob 3 03'"),
        ("Cid\t1", "Bob\t1", "line 5 of .* or two people; got 'Bob 1 Bob 12'"),
        ("2\t1\n", "2\n", "must have two folds or more, .* got 1; give"),
        ("2\t1\n", "0\t2\n", "must have two folds or more, .* got 0; give"),
    ],
)
def test_bad_lists(tmp_path, old, new, match):
    path = tmp_path / "pairs.txt"
    path.write_text(LIST.replace(old, new))
    with pytest.raises(ValueError, match=match):
        read_lfw_pairs(path)
    with pytest.raises(ValueError, match="must be a list of pairs; got no file"):
        read_lfw_pairs(tmp_path / "nowhere")
