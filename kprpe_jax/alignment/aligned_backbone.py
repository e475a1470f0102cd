"""A backbone with an aligner in front of it, or inside of it."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax.alignment import warps
from kprpe_jax.alignment.localization import LocalizationNet
from kprpe_jax.alignment.warps import Warp
from kprpe_jax.backbones.network import Network
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import BLACK

INPUT = "input"
METHODS = (*warps.GIVEN, *warps.LEARNED)


class AlignedEmbedding(NamedTuple):
    """Embeddings with the warp of their images.

    Attributes:
      embeddings: float32 [B, D].
      warp: of the batch, for use within the same traced function.
    """

    embeddings: Array
    warp: Warp


class AlignedBackbone(Network):
    """A backbone whose input, or the feature map after one of its parts, is warped.

    It reads S landmarks, those of the template, where the warp comes from landmarks.
    Learned warps read none; behind them, and without a warp, a backbone that reads K
    keypoints takes either the S landmarks, of which `points` are its keypoints, or
    these K alone. Keypoints reach the backbone where the warp has brought them.

    Source: Balanced Alignment, Fig. 5 and Secs. 3.1, 3.2 and 4.1.

    Attributes:
      backbone: a `Network`.
      method: of METHODS: "none"; "affine2d" and "full_align" from landmarks; "affine",
        "projective" and "tps" from a localization network that sees the images.
      after: "input", or the path of the backbone's submodule whose output is warped,
        such as "stem_act" (stage 0 of an iResNet) or "stages_0_2".
      control: (rows, columns) of the control points of "tps".
      template: [S, 2] as tuples, fractions of the image, where "affine2d" and
        "full_align" bring the landmarks.
      points: the keypoints among the landmarks; "affine2d" fits them.
      localization: fields of LocalizationNet.
    """

    backbone: Network
    method: str = "tps"
    after: str = INPUT
    control: tuple[int, int] = (8, 8)
    template: tuple[tuple[float, float], ...] = ()
    points: tuple[int, ...] = (0, 1, 2, 3, 4)
    localization: Any = None

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.backbone.image_size

    @property
    def output_dim(self) -> int:
        """D, size of the embedding."""
        return self.backbone.output_dim

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        return self.backbone.grid

    @property
    def patch_map(self) -> str:
        """Name of the feature map whose cells are the patches."""
        return self.backbone.patch_map

    @property
    def style_maps(self) -> tuple[str, ...]:
        """Names of the feature maps that style statistics are taken from."""
        return self.backbone.style_maps

    @property
    def uses_keypoints(self) -> bool:
        """Whether landmarks or keypoints are read."""
        return self.num_keypoints > 0

    @property
    def num_keypoints(self) -> int:
        """S where landmarks give the warp, else K of the backbone; 0 = none."""
        if self.method in warps.GIVEN and self.method != "none":
            return len(self.template)
        return self.backbone.num_keypoints

    def __call__(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> Array:
        """Embed images as aligned.

        Args:
          images: [B, H, W, 3].
          keypoints: float32 [B, S or K, 2], fractions of the image; see the class.
          train: of the backbone and the localization network.
        Returns: float32 [B, D].
        Raises: ValueError: an unknown method or submodule; keypoints missing, or not
          those of the template.
        """
        return self.aligned(images, keypoints, train=train).embeddings

    def aligned(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> AlignedEmbedding:
        """As `__call__`, with the warp, which the alignment loss reads."""
        result, warp = self._run("__call__", images, keypoints, train=train)
        return AlignedEmbedding(result, warp)

    def features(
        self,
        images: Array,
        keypoints: Array | None = None,
        *,
        train: bool = False,
        style_maps: tuple[str, ...] = (),
    ) -> Features:
        """Features of the backbone behind the warp; arguments as there."""
        options = dict(train=train, style_maps=style_maps)
        return self._run("features", images, keypoints, **options)[0]

    def feature_maps(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> dict[str, Array]:
        """Feature maps of the backbone behind the warp; arguments as `__call__`."""
        return self._run("feature_maps", images, keypoints, train=train)[0]

    def embed_map(self, patch_map: Array, *, train: bool = False) -> Array:
        """The backbone's last feature map to embeddings, float32 [B, D]."""
        return self.backbone.embed_map(patch_map, train=train)

    @nn.compact
    def _run(
        self,
        function: str,
        images: Array,
        keypoints: Array | None,
        *,
        train: bool,
        **options: Any,
    ) -> tuple[Any, Warp]:
        """Call a function of the backbone behind the warp."""
        warp = self._make_warp(images, keypoints, train)
        points = self._points(keypoints)
        if points is not None:
            points = warps.carry_keypoints(warp, points)
        call = partial(getattr(self.backbone, function), train=train, **options)
        if self.method == "none":
            return call(images, points), warp
        if self.after == INPUT:
            return call(warps.warp_map(warp, images, outside=BLACK), points), warp
        change = partial(warps.warp_map, warp)
        with _changed_map(self.backbone, self.after, change):
            result = call(images, points)
        return result, warp

    def _points(self, keypoints: Array | None) -> Array | None:
        """What the backbone reads of the given landmarks or keypoints."""
        if not self.backbone.uses_keypoints or keypoints is None:
            return None
        if keypoints.shape[1] == len(self.template):
            return keypoints[:, np.array(self.points)]
        return keypoints

    def _make_warp(self, images: Array, landmarks: Array | None, train: bool) -> Warp:
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
        if self.method == "none":
            return warps.identity_warp(images.shape[0])
        template = np.array(self.template, np.float32).reshape(-1, 2)
        if landmarks is None or landmarks.shape[1:] != template.shape:
            got = "none" if landmarks is None else landmarks.shape
            raise ValueError(
                f"AlignedBackbone: landmarks must be [B, {len(template)}, 2] for this "
                f"template; got {got}; give both for the same points"
            )
        return warps.landmark_warp(
            self.method, 2 * landmarks - 1, 2 * template - 1, self.points
        )


@contextlib.contextmanager
def _changed_map(
    backbone: nn.Module, after: str, change: Callable[[Array], Array]
) -> Iterator[None]:
    """Change the output of one of a backbone's submodules while it is called."""
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
        yield
    if not hits:
        raise ValueError(
            f"AlignedBackbone: after must be {INPUT} or a submodule of the backbone; "
            f"got {after!r}; there are {', '.join(sorted(seen)) or 'none so deep'}"
        )
