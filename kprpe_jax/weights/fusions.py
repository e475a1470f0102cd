"""Fusion models by their names or files."""

from kprpe_jax import registry
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.paths import is_bucket
from kprpe_jax.fusion.files import FusionFile, check_fusion, load_model, make_fusion
from kprpe_jax.weights.published import read_published

MEANS = {  # fusion without weights -> key of `registry.FUSIONS`
    "average": "average",
    "norm": "norm_weighted",
    "landmark_score": "landmark_score",
    "detection_score": "detection_score",
    "norm_detection_score": "norm_detection_score",
    "inlier_average": "inlier_average",
}


def make_mean(
    name: str, embed_dim: int, image_size: tuple[int, int] = (112, 112)
) -> FusionFile:
    """A fusion without weights.

    Args:
      name: key of MEANS.
      embed_dim: D, of the embeddings.
      image_size: (height, width) of the network's images; `landmark_score` reads it.
    """
    method = MEANS[name]
    fields = {"image_size": tuple(image_size)} if method == "landmark_score" else {}
    model = registry.resolve(registry.FUSIONS[method])(embed_dim, method, **fields)
    return make_fusion(model, {}, backbone="")


def read_fusion(spec: str, recognizer: Recognizer | None = None) -> FusionFile:
    """Read a fusion model that is no run.

    Args:
      spec: a key of MEANS, a plain or weighted mean; NAME:FILE, a published fusion
        model; or a .safetensors file that `export --fusion` wrote.
      recognizer: whose features will be fused; None = not known yet, which a mean does
        not allow.
    Raises: ValueError: none of these; as `check_fusion`.
    """
    if spec in MEANS:
        if recognizer is None:
            raise ValueError(f"--fusion {spec}: needs --model, whose width it takes.")
        width = recognizer.shapes().embeddings.shape[-1]
        return make_mean(spec, width, recognizer.image_size)
    name, colon, path = spec.partition(":")
    if colon and not is_bucket(spec):
        _, model, variables = read_published(name, path, "fusion")
        file = make_fusion(model, variables, backbone="")
    elif spec.endswith(".safetensors"):
        file = load_model(spec)
    else:
        raise ValueError(
            f"--fusion {spec}: must be {', '.join(MEANS)}; NAME:FILE, a published "
            "fusion model; a .safetensors file that `export --fusion` wrote; or a run "
            "of set_fusion, FOLDER[@CHECKPOINT]; got none of these."
        )
    if recognizer is not None:
        check_fusion(file, recognizer)
    return file
