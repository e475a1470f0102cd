"""Thresholds of the cosine that were measured for published networks."""

from typing import NamedTuple


class MeasuredThreshold(NamedTuple):
    """A threshold and what it accepts.

    Attributes:
      threshold: a cosine at or above it is accepted as the same person.
      false_acceptance_rate: share of pairs of two people that it accepts.
      true_acceptance_rate: share of pairs of one person that it accepts.
      data: what it was measured on.
    """

    threshold: float
    false_acceptance_rate: float
    true_acceptance_rate: float
    data: str


# python -m benchmarks thresholds --model mobilefacenet:mobilefacenet.npz \
#     --archive lfw_df_aligned112.tar.gz --pairs pairs.txt
THRESHOLDS = {
    "mobilefacenet": MeasuredThreshold(0.3782, 0.001, 0.9543, "6,000 pairs of LFW"),
}


def measured_threshold(name: str) -> MeasuredThreshold | None:
    """The threshold of a published network, by the name of its recognizer."""
    return THRESHOLDS.get(name)
