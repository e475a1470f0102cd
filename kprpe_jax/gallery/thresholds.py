"""Thresholds of the cosine that were measured for published networks."""

from typing import NamedTuple

from kprpe_jax.backbones.recognizer import Recognizer


class MeasuredThreshold(NamedTuple):
    """A threshold and what it accepts.

    Attributes:
      threshold: a cosine at or above it is accepted as the same person.
      false_acceptance_rate: share of pairs of two people that it accepts.
      true_acceptance_rate: share of pairs of one person that it accepts.
      data: what it was measured on.
      fingerprint: of the recognizer, with the framing of its photos.
    """

    threshold: float
    false_acceptance_rate: float
    true_acceptance_rate: float
    data: str
    fingerprint: str


# python -m benchmarks thresholds --model mobilefacenet:mobilefacenet.npz \
#     --archive lfw_df_aligned112.tar.gz --pairs pairs.txt
THRESHOLDS = {
    "mobilefacenet": MeasuredThreshold(
        0.3782,
        0.001,
        0.9543,
        "6,000 pairs of LFW",
        "a7fd1678a5e6b73b7c87f3e50bf61eb1ed21999c27ac56313d3e60d572e564b8",
    ),
    # python -m benchmarks real_faces --model dlib_resnet_v1 \
    #     --detector blazeface_short --frames lfw_df_fullframe250_sample.tar
    "dlib_resnet_v1": MeasuredThreshold(
        0.9263,
        0.001,
        0.9697,
        "19,602 pairs of two people and 99 of one in LFW",
        "d1ff1c0beada14c6a2180451e280427ec8bc69272a0e1b085c073aaa7a314119",
    ),
}


def measured_threshold(recognizer: Recognizer) -> MeasuredThreshold | None:
    """The threshold of a published network with the weights that were measured."""
    found = THRESHOLDS.get(recognizer.name)
    if found is None or found.fingerprint != recognizer.fingerprint:
        return None
    return found
