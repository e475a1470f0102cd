"""A network with its weights and its input contract: what all stages share."""

import functools
import json
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import numpy as np
from jax import Array

from kprpe_jax.backbones.description import describe
from kprpe_jax.backbones.program_network import ProgramNetwork
from kprpe_jax.core.checks import check_option
from kprpe_jax.core.features import Features
from kprpe_jax.core.fingerprint import fingerprint_arrays
from kprpe_jax.core.input_spec import FRAMINGS, InputSpec


@flax.struct.dataclass
class Recognizer:
    """Images to features.

    A pytree whose leaves are the variables, so that it is passed through `jax.jit` like
    an array: states of one run share one compiled program.

    Attributes:
      variables: of `module`, {"params": tree, other collections}.
      module: a `Network`, or a Flax module with its methods; or a `ProgramNetwork`.
      input_spec: what the network was trained to read; applied by `features`.
      name: in words, for messages and files.
      license: one line about the weights; "" = unknown.
      style_maps: feature maps of the style statistics; () = the network's own.
    """

    variables: Any
    module: nn.Module | ProgramNetwork = flax.struct.field(pytree_node=False)
    input_spec: InputSpec = flax.struct.field(pytree_node=False)
    name: str = flax.struct.field(pytree_node=False)
    license: str = flax.struct.field(pytree_node=False, default="")
    style_maps: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())

    @property
    def uses_keypoints(self) -> bool:
        """Whether the network reads keypoints."""
        return self.input_spec.uses_keypoints

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images in pixels."""
        return self.input_spec.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        return self.module.grid

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of architecture, contract and every weight, in hexadecimal.

        Features may be compared only where it is the same. Reads all weights to the
        host.
        """
        module = json.dumps(describe(self.module), sort_keys=True)
        about = module, tuple(self.input_spec), self.style_maps
        return fingerprint_arrays(about, self.variables)

    def with_framing(self, framing: str | None) -> "Recognizer":
        """The same network, shown another part of photos; None = as it was trained.

        Args:
          framing: of `InputSpec`.
        """
        if framing is None:
            return self
        check_option("Recognizer", "framing", framing, FRAMINGS)
        return self.replace(input_spec=self.input_spec._replace(framing=framing))

    def features(self, images: Array, keypoints: Array | None = None) -> Features:
        """Embeddings, patches and style of images; compiled by the caller.

        Args:
          images: [B, h, w, 3], RGB in [-1, 1], as `InputSpec.apply` takes them.
          keypoints: float32 [B, K, 2], (x, y) in fractions of the image.
        Returns: float32 features, their keypoints in fractions of the network's image.
        Raises: ValueError: images of another size, or keypoints missing.
        """
        if isinstance(self.module, ProgramNetwork):
            inputs = self.input_spec.fit(images, keypoints)
            found = self.module.call(self.variables, *inputs)
            return Features(**found, keypoints=inputs[1])
        result = self.module.apply(
            self.variables,
            *self.input_spec.arguments(images, keypoints),
            style_maps=self.style_maps,
            method="features",
        )
        return result._replace(keypoints=self.input_spec.apply(images, keypoints)[1])

    def embed(self, images: Array, keypoints: Array | None = None) -> Array:
        """Embeddings float32 [B, D], not normalized; arguments as `features`."""
        if isinstance(self.module, ProgramNetwork):
            return self.features(images, keypoints).embeddings
        inputs = self.input_spec.arguments(images, keypoints)
        return self.module.apply(self.variables, *inputs)

    def shapes(self) -> Features:
        """Shapes of the features of one image; nothing is computed."""
        count = max(self.input_spec.num_keypoints, 5)
        batch = jax.device_count()  # a network may spread its batch over a mesh
        images = jax.ShapeDtypeStruct((batch, *self.image_size, 3), np.float32)
        keypoints = jax.ShapeDtypeStruct((batch, count, 2), np.float32)
        found = jax.eval_shape(Recognizer.features, self, images, keypoints)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), found
        )
