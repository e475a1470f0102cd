"""A recognizer with an aligner in front of it, or inside of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax.alignment import warps
from kprpe_jax.alignment.localization import LocalizationNet
from kprpe_jax.alignment.warps import Warp
from kprpe_jax.core.input_spec import BLACK

INPUT = "input"
METHODS = (*warps.GIVEN, *warps.LEARNED)


class AlignedEmbedding(NamedTuple):
    """What `AlignedBackbone` gives.

    Attributes:
      embeddings: float32 [B, D].
      warp: of the batch, for use within the same traced function.
    """

    embeddings: Array
    warp: Warp


class AlignedBackbone(nn.Module):
    """Warp the input of a backbone, or the feature map after one of its parts.

    Source: Balanced Alignment, Fig. 5 and Secs. 3.1, 3.2 and 4.1.

    Attributes:
      backbone: called with (images, *other inputs, train=...).
      method: of METHODS: "none"; "affine2d" and "full_align" from landmarks; "affine",
        "projective" and "tps" from a localization network that sees the images.
      after: "input", or the path of the backbone's submodule whose output is warped,
        such as "stem_act" (stage 0 of an iResNet) or "stages_0_2".
      control: (rows, columns) of the control points of "tps".
      template: [S, 2] as tuples, fractions of the image, where "affine2d" and
        "full_align" bring the landmarks.
      points: the landmarks that "affine2d" fits.
      localization: fields of LocalizationNet.
      carry: whether the backbone reads keypoints, its second input, where the warp
        has brought them; for a warp of the input only.
    """

    backbone: nn.Module
    method: str = "tps"
    after: str = INPUT
    control: tuple[int, int] = (8, 8)
    template: tuple[tuple[float, float], ...] = ()
    points: tuple[int, ...] = (0, 1, 2, 3, 4)
    localization: Any = None
    carry: bool = False

    @nn.compact
    def __call__(
        self, images: Array, landmarks: Array, *others: Array, train: bool = False
    ) -> AlignedEmbedding:
        """Embed images as aligned.

        Args:
          images: [B, H, W, 3] in [-1, 1].
          landmarks: [B, S, 2], fractions of the image; only methods that are given by
            landmarks look at them.
          *others: further inputs of the backbone: keypoints.
          train: of the backbone and the localization network.
        Raises: ValueError: an unknown method or submodule; a template that does not
          fit.
        """
        warp = self._make_warp(images, landmarks, train)
        if self.carry and others:
            others = (warps.carry_keypoints(warp, others[0]), *others[1:])
        if self.method == "none":
            return AlignedEmbedding(self.backbone(images, *others, train=train), warp)
        if self.after == INPUT:
            warped = warps.warp_map(warp, images, outside=BLACK)
            return AlignedEmbedding(self.backbone(warped, *others, train=train), warp)
        embeddings = _call_with_tap(
            self.backbone,
            self.after,
            lambda maps: warps.warp_map(warp, maps),
            *(images, *others),
            train=train,
        )
        return AlignedEmbedding(embeddings, warp)

    def _make_warp(self, images: Array, landmarks: Array, train: bool) -> Warp:
        if self.method in warps.LEARNED:
            count = warps.num_parameters(self.method, self.control)
            network = LocalizationNet(
                count, **(self.localization or {}), name="localization"
            )
            outputs = network(images, train=train)
            return warps.learned_warp(outputs, self.method, self.control)
        if self.method not in METHODS:
            raise ValueError(
                f"AlignedBackbone: method must be one of {', '.join(METHODS)}; got "
                f"{self.method!r}; choose one"
            )
        template = np.array(self.template, np.float32).reshape(-1, 2)
        if self.method != "none" and landmarks.shape[1:] != template.shape:
            raise ValueError(
                f"AlignedBackbone: landmarks must be [B, {len(template)}, 2] for this "
                f"template; got {landmarks.shape}; give both for the same points"
            )
        return warps.landmark_warp(
            self.method, 2 * landmarks - 1, 2 * template - 1, self.points
        )


def _call_with_tap(
    backbone: nn.Module,
    after: str,
    change: Callable[[Array], Array],
    *inputs: Array,
    train: bool,
) -> Array:
    """Call a backbone with the output of one of its submodules changed."""
    target = (*backbone.path, *after.split("/"))
    seen: set[str] = set()
    hits = []

    def intercept(call, args, kwargs, context):
        result = call(*args, **kwargs)
        path = context.module.path
        if context.method_name != "__call__" or path[:-1] != target[:-1]:
            return result
        seen.add("/".join(path[len(backbone.path) :]))
        if path != target:
            return result
        if not isinstance(result, jnp.ndarray) or result.ndim != 4:
            raise ValueError(
                f"AlignedBackbone: a feature map [B, h, w, C] must come out of {after};"
                f" got {getattr(result, 'shape', type(result).__name__)}; warp the "
                "input instead"
            )
        hits.append(path)
        return change(result)

    with nn.intercept_methods(intercept):
        embeddings = backbone(*inputs, train=train)
    if not hits:
        raise ValueError(
            f"AlignedBackbone: after must be {INPUT} or a submodule of the backbone; "
            f"got {after!r}; there are {', '.join(sorted(seen)) or 'none so deep'}"
        )
    return embeddings
