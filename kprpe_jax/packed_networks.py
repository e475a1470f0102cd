"""Small networks that come with the package: files that `export` wrote, and cards."""

import pathlib

from kprpe_jax.model_cards import ModelCard

FOLDER = pathlib.Path(__file__).parent / "packed"
LICENSE = "Apache-2.0, as the package; trained on synthetic faces alone"

# How they were trained and measured: docs/synthetic_network.md.
PACKED = {
    "kprpe_tiny_synthetic": ModelCard(
        "KP-RPE (Kim et al., CVPR 2024), with anchored initialization",
        "in the package",
        "44,000 rendered images of 2,000 synthetic people (--config tiny_synthetic)",
        measured="pairs of 200 other synthetic people 97.9 %, misaligned (severity 1) "
        "91.3 %; LFW 71.8 % (docs/synthetic_network.md)",
    ),
}


def packed_file(name: str) -> pathlib.Path:
    """The file of a network of PACKED."""
    return FOLDER / f"{name}.safetensors"
