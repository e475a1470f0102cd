"""Load the networks of a gallery: those it was made with, unless others are named."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kprpe_jax import recognizers
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.paths import in_bucket
from kprpe_jax.detection.detector import Detector
from kprpe_jax.fusion.files import FusionFile
from kprpe_jax.gallery.database import is_gallery_there
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.header import GalleryHeader, NetworkSource, describe_gallery
from kprpe_jax.recognizers import NO_DETECTOR
from kprpe_jax.weights.installed import (
    DEFAULT_RECOGNIZER,
    HOW,
    default_networks,
    installed_file,
)


class GalleryNetworks(NamedTuple):
    """The networks with which photos are added to a gallery, or compared with it.

    Attributes:
      recognizer: the network.
      detector: None = photos are aligned faces.
      recognizer_source, detector_source: what the gallery remembers of them.
      patches: how the gallery keeps patches; None = it is new.
    """

    recognizer: Recognizer
    detector: Detector | None
    recognizer_source: NetworkSource
    detector_source: NetworkSource | None
    patches: str | None = None

    def header(
        self, patches: str | None = None, fusion: NetworkSource | None = None
    ) -> GalleryHeader:
        """Header of a gallery that is made with these.

        Args:
          patches: how it keeps patches; None = as it does, a new one in bfloat16.
          fusion: what made its entries; None = a photo each.
        """
        return describe_gallery(
            self.recognizer,
            patches or self.patches or "bfloat16",
            source=self.recognizer_source,
            detector=self.detector_source,
            fusion=fusion,
        )


def load_gallery_networks(
    path: str | os.PathLike,
    model: str | None = None,
    detector: str | None = None,
    *,
    align: str | None = None,
    style_maps: tuple[str, ...] = (),
    min_score: float | None = None,
    max_side: int | None = None,
) -> GalleryNetworks:
    """Load a gallery's recognizer and detector.

    Args:
      path: of the gallery; there need not be one yet.
      model: SPEC of `load_recognizer`; None = the gallery's, or of a new one that which
        is installed.
      detector: SPEC of `load_detector`; None = the gallery's; NO_DETECTOR; of a new one
        with `model` None that which is installed, otherwise none.
      align: framing of `InputSpec`; None = the gallery's, or in a new one as the
        network was trained.
      style_maps: of `load_recognizer`; () = the gallery's, or the network's own.
      min_score, max_side: of `load_detector`; None = as the gallery was made with.
    Raises: ValueError: another recognizer or detector than the gallery's; one that is
      not where it was; none named where the gallery knows none; as `load_recognizer`.
    """
    if is_gallery_there(path):
        with Gallery(path) as gallery:
            options = _given(min_score, max_side)
            return _load(gallery, model, style_maps, detector, align, options)
    if model is None and installed_file(DEFAULT_RECOGNIZER) is None:
        raise ValueError(
            f"gallery: there is none at {path}, and a new one needs --model; name the "
            f"recognizer, correct the path, or install {DEFAULT_RECOGNIZER} ({HOW})."
        )
    model, detector = default_networks(model, detector)
    own = dict(style_maps=style_maps) if style_maps else {}
    recognizer = recognizers.load_recognizer(model, **own).with_framing(align)
    found, source = None, None
    if detector not in (None, NO_DETECTOR):
        options = _given(min_score, max_side)
        found = recognizers.load_detector(detector, **options)
        source = _source(found, detector, options)
    recognizer_source = _source(recognizer, model, own)
    return GalleryNetworks(recognizer, found, recognizer_source, source)


def load_gallery_fusion(
    path: str | os.PathLike, recognizer: Recognizer, spec: str | None = None
) -> tuple[FusionFile | None, NetworkSource | None]:
    """Load a gallery's fusion.

    Args:
      path: of the gallery; there need not be one yet.
      recognizer: whose features are fused.
      spec: of `load_fusion`; None = the gallery's.
    Returns: the fusion and what the gallery remembers of it; None where the gallery has
      none and none is named.
    Raises: ValueError: another fusion than the gallery's; one that is not where it was;
      as `load_fusion`.
    """

    def load(spec: str) -> FusionFile:
        return recognizers.load_fusion(spec, recognizer)

    if not is_gallery_there(path):
        file = None if spec is None else load(spec)
        return file, None if file is None else fusion_source(file, spec)
    with Gallery(path) as gallery:
        own = gallery.header.fusion
        if spec is not None:
            file = load(spec)
            source = fusion_source(file, spec)
            if own is not None:
                gallery.check_fusion(source)
            return file, source
        if own is None:
            return None, None
        file = _load_remembered(load, own, "--fusion", gallery)
        gallery.check_fusion(fusion_source(file, own.spec))
        return file, own


def fusion_source(file: FusionFile, spec: str) -> NetworkSource:
    """What a gallery, and a file of features, remembers of a fusion."""
    resolved = recognizers.absolute_spec(spec)
    return NetworkSource(spec, file.fingerprint, spec, resolved)


def _load(
    gallery: Gallery,
    model: str | None,
    style_maps: tuple[str, ...],
    detector: str | None,
    align: str | None,
    options: Mapping[str, Any],
) -> GalleryNetworks:
    """The networks of a gallery that is there, checked."""
    source = gallery.header.recognizer
    if style_maps:
        source = source._replace(options={**source.options, "style_maps": style_maps})
    if model is None:
        load = recognizers.load_recognizer
        recognizer = _load_remembered(load, source, "--model", gallery)
    else:
        recognizer = recognizers.load_recognizer(model, **source.options)
        source = _source(recognizer, model, source.options)
    align = align or gallery.header.input_spec.framing
    recognizer = recognizer.with_framing(align)
    gallery.check(recognizer)
    found, detector_source = _load_detector(gallery, detector, options)
    patches = gallery.header.patches
    return GalleryNetworks(recognizer, found, source, detector_source, patches)


def _load_detector(
    gallery: Gallery, spec: str | None, options: Mapping[str, Any]
) -> tuple[Detector | None, NetworkSource | None]:
    """The detector of a gallery that is there, and what it remembers of it."""
    own = gallery.header.detector
    if spec == NO_DETECTOR or (spec is None and own is None):
        return None, own
    if own is None:
        found = recognizers.load_detector(spec, **options)
        return found, _source(found, spec, options)

    def load(spec: str, **made: Any) -> Detector:
        # Its fingerprint is of the options with which the gallery was made.
        found = recognizers.load_detector(spec, **made)
        gallery.check_detector(found)
        changed = {**made, **options}
        return found if changed == made else recognizers.load_detector(spec, **changed)

    if spec is None:
        return _load_remembered(load, own, "--detector", gallery), own
    resolved = recognizers.absolute_spec(spec)
    return load(spec, **own.options), own._replace(spec=spec, resolved=resolved)


def _load_remembered(
    load: Callable[..., Any], source: NetworkSource, option: str, gallery: Gallery
) -> Any:
    """A network from where it was when the gallery was made."""
    if not source.spec:
        raise ValueError(
            f"gallery: {gallery.path} does not know where {source.name} lies; give it "
            f"with {option} SPEC; `enroll` then remembers it."
        )
    for spec in (source.resolved, source.spec):
        try:
            return load(spec, **source.options)
        except ValueError:
            if _is_there(spec):
                raise
    raise ValueError(
        f"gallery: {gallery.path} was made with {source.resolved}, which is not there "
        f"any more; say with {option} SPEC where it is now."
    )


def _is_there(spec: str) -> bool:
    """Whether a SPEC is on the disk; packages and buckets say so themselves."""
    if recognizers.is_name_alone(spec) or in_bucket(spec):
        return True
    path = spec.rpartition(":")[2]
    paths = path, path.rpartition("@")[0]
    return any(path and pathlib.Path(path).exists() for path in paths)


def _source(
    network: Recognizer | Detector, spec: str, options: Mapping[str, Any] = {}
) -> NetworkSource:
    resolved = recognizers.absolute_spec(spec)
    return NetworkSource(
        network.name, network.fingerprint, spec, resolved, dict(options)
    )


def _given(min_score: float | None, max_side: int | None) -> dict[str, Any]:
    """The options of a detector that were given."""
    options = dict(min_score=min_score, max_side=max_side)
    return {name: x for name, x in options.items() if x is not None}
