"""A recognizer's weights under the names that its official PyTorch code gives them."""

import os

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.safetensors_file import check_safetensors_path, write_safetensors
from kprpe_jax.weights.load import export_weights, has_layout

_OTHER_CODE = ("DlibResNet",)  # whose own code is not PyTorch's


def save_pytorch(path: str | os.PathLike, recognizer: Recognizer) -> int:
    """Write the official state dict of a recognizer, in one move.

    The names are those of the network itself, without the prefix of a wrapper such as
    CVLface's `net.`; counters of steps and buffers that follow from the architecture
    are left out. The metadata have the name, the license and the input contract.

    Args:
      path: .safetensors file; its folder must exist.
      recognizer: of a class in `weights.load.LAYOUTS`, with the options of official
        weights.
    Returns: how many arrays were written.
    Raises: ValueError: another ending; a network without an official layout.
    """
    path = check_safetensors_path(path)
    kind = type(recognizer.module).__name__
    if not has_layout(recognizer.module) or kind in _OTHER_CODE:
        raise ValueError(
            f"--format pytorch: no official PyTorch code has a {kind}, such as "
            f"{recognizer.name} is; leave --format out."
        )
    try:
        weights = export_weights(recognizer.module, recognizer.variables)
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"--format pytorch: {recognizer.name} has no official layout: {reason}."
        ) from error
    metadata = {
        "format": "pt",
        "name": recognizer.name,
        "license": recognizer.license or "unknown",
        "input": recognizer.input_spec.describe(),
    }
    write_safetensors(path, weights, metadata)
    return len(weights)
