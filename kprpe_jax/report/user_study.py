"""A user study as one HTML page: do explanations help people to verify faces?

Source: DeepFace-EMD and Face-ViT, Sec. 5.3.3 (five examples, then pairs with the
explanations of several methods; Figs. 5.10-5.13). The page keeps its answers over a
reload, gives them as a JSON file and scores them. It holds the truth, so it suits
participants who do not read its source.
"""

import json
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kprpe_jax.report.page import data_uri, write_page


class StudyPair(NamedTuple):
    """Two faces and how a method explains their similarity.

    Attributes:
      method: name of what explains; "none" where nothing does.
      first, second: uint8 [H, W, 3].
      explanation: uint8 [H', W', 3], shown between the faces; None = nothing.
      same: whether they show one person.
    """

    method: str
    first: np.ndarray
    second: np.ndarray
    explanation: np.ndarray | None
    same: bool


def write_study_page(
    examples: Sequence[StudyPair],
    pairs: Sequence[StudyPair],
    path: str | os.PathLike,
    *,
    study: str,
    seed: int = 0,
) -> None:
    """Write the page.

    Args:
      examples: shown first, with the truth.
      pairs: shown one by one, in an order sampled by the seed.
      path: of the file.
      study: name; answers of another study are not mixed in.
      seed: of the order, such as the participant's number.
    Raises: ValueError: no pairs; images that are not uint8 [H, W, 3].
    """
    if not pairs:
        raise ValueError("write_study_page: there must be pairs to ask for; got none.")
    order = np.random.default_rng(seed).permutation(len(pairs))
    data = {
        "study": study,
        "seed": seed,
        "examples": [_pair(pair, number) for number, pair in enumerate(examples)],
        "pairs": [_pair(pairs[number], int(number)) for number in order],
    }
    write_page(path, "user_study", "Are these two faces of the same person?", data)


def _pair(pair: StudyPair, number: int) -> dict[str, Any]:
    where = f"write_study_page: pair {number} of {pair.method!r}"
    return {
        "number": number,
        "method": pair.method,
        "images": [data_uri(image, where) for image in (pair.first, pair.second)],
        "explanation": None
        if pair.explanation is None
        else data_uri(pair.explanation, where),
        "same": bool(pair.same),
    }


class StudyScore(NamedTuple):
    """How well people did with a method.

    Attributes:
      right, count: answers.
      accuracy: right / count, in [0, 1].
      low, high: 95 % interval of the accuracy (Wilson's).
    """

    right: int
    count: int
    accuracy: float
    low: float
    high: float


def score_answers(paths: Sequence[str | os.PathLike]) -> dict[str, StudyScore]:
    """Score the files that participants saved, all together.

    Args:
      paths: JSON files of one study.
    Returns: method -> score, methods in the order of their first answer.
    Raises: ValueError: names the file that is no such file, or of another study.
    """
    counts: dict[str, list[int]] = {}
    study = None
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                saved = json.load(file)
            answers = [
                (str(a["method"]), bool(a["same"]) == bool(a["answer"]))
                for a in saved["answers"]
            ]
            study = study or saved["study"]
        except (OSError, ValueError, TypeError, KeyError) as e:
            raise ValueError(
                f"score_answers: {os.fspath(path)} must be a file that the page saved; "
                f"reading it failed ({type(e).__name__}); ask for it again"
            ) from e
        if saved["study"] != study:
            raise ValueError(
                f"score_answers: all files must be of one study, {study!r}; got "
                f"{saved['study']!r} in {os.fspath(path)}; score them apart"
            )
        for method, right in answers:
            count = counts.setdefault(method, [0, 0])
            count[0] += right
            count[1] += 1
    return {method: _score(*count) for method, count in counts.items()}


def _score(right: int, count: int, z: float = 1.96) -> StudyScore:
    share = right / count
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count)
    half *= math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return StudyScore(right, count, share, center - half, center + half)
