"""Files are told apart by a few of their names and shapes."""

import pathlib

import numpy as np
import pytest

from kprpe_jax import registry
from kprpe_jax.weights import check_weights
from kprpe_jax.weights.load import _layout
from kprpe_jax.weights.rules import _source_shape
from kprpe_jax.weights.signature_table import SIGNATURES
from kprpe_jax.weights.signatures import looks_like, make_signatures

TABLE = pathlib.Path(registry.__file__).parent / "weights" / "signature_table.py"


class Shaped:
    """What has a shape, and no numbers."""

    def __init__(self, shape):
        self.shape = shape


def file_of(name):
    """The shapes of a network's file by their names."""
    _, layout = _layout(name, {})
    return {rule.source: _source_shape(rule, layout.shapes) for rule in layout.rules}


def table(signatures):
    """The text of `signature_table`; this test's failure shows how to write it."""
    lines = [
        '"""A few entries of each published network\'s files; see `signatures`."""',
        "",
        "# tests/weights/test_signatures.py says what it must be.",
        "SIGNATURES: dict[str, tuple[int, str]] = {",
    ]
    for name, (count, text) in signatures.items():
        lines += [
            f'    "{name}": (',
            f"        {count},",
            f'        "{text}",',
            "    ),",
        ]
    return "\n".join([*lines, "}", ""])


@pytest.mark.slow
def test_the_table_is_of_the_registered_networks(tmp_path):
    layouts = {name: file_of(name) for name in registry.NETWORKS}
    want = tmp_path / "signature_table.py"
    want.write_text(table(make_signatures(layouts)))
    assert TABLE.read_text() == want.read_text(), f"copy {want} to {TABLE}"
    for name, layout in layouts.items():
        found = looks_like({f"model.{k}": Shaped(x) for k, x in layout.items()})
        assert name in found
        assert all(layouts[other] == layout for other in found)


@pytest.mark.parametrize("prefix", ["", "model.net."])
def test_the_error_names_the_network(prefix):
    layout = file_of("iresnet_ir18")
    arrays = {f"{prefix}{k}": np.zeros(x, np.float32) for k, x in layout.items()}
    arrays["head.kernel"] = np.zeros((2, 3), np.float32)
    message = "they look like adaface_ir18 or iresnet_ir18: name that network"
    with pytest.raises(ValueError, match=message) as error:
        check_weights("mobilefacenet", arrays)
    assert len(str(error.value)) < 1500


def test_what_looks_like_nothing():
    assert looks_like({"a": np.zeros(3), "model.b": np.zeros(2)}) == []
    assert len(SIGNATURES) == len(registry.NETWORKS)
