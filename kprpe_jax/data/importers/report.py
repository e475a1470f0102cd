"""The report of an import: counted per shard while it runs, added up at its end."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

from kprpe_jax.data.importers.record import KEYPOINTS_FROM, NO_IDENTITY, RejectedRecord


@dataclasses.dataclass
class Shard:
    """The contents of one shard, and the entries that it leaves out.

    Attributes:
      entries: of the source that it accounts for.
      rows: of the shard.
      bytes: of its file.
      names: identities that appear first in it, in order; the labels go on counting.
      labels: those in it.
      bad: key, kind and reason of every bad entry.
      keypoints_from: origin of the keypoints (record.KEYPOINTS_FROM) -> rows.
      rows_with_landmarks: with some of a table of other points than the five keypoints.
      rows_with_all_landmarks: with all of them.
      no_identity: rows without.
      heights: smallest and largest, pixels.
      widths: likewise.
    """

    entries: int = 0
    rows: int = 0
    bytes: int = 0
    names: list[str] = dataclasses.field(default_factory=list)
    labels: list[int] = dataclasses.field(default_factory=list)
    bad: list[RejectedRecord] = dataclasses.field(default_factory=list)
    keypoints_from: dict[str, int] = dataclasses.field(default_factory=dict)
    rows_with_landmarks: int = 0
    rows_with_all_landmarks: int = 0
    no_identity: int = 0
    heights: list[int] = dataclasses.field(default_factory=list)
    widths: list[int] = dataclasses.field(default_factory=list)

    @property
    def from_table(self) -> int:
        """Rows whose points the landmark table knows."""
        return self.rows_with_landmarks or self.keypoints_from.get("table", 0)


def make_report(
    shards: list[Shard], origin: dict[str, Any], landmark_rows: int
) -> dict[str, Any]:
    """Add up the shards.

    Args:
      shards: all of them, in order.
      origin: what was imported.
      landmark_rows: of the landmark table, 0 = there is none.
    Returns: JSON values; `bad` maps each kind to its count and its entries.
    """
    labels = set().union(*(shard.labels for shard in shards)) - {NO_IDENTITY}
    num_classes = max(labels, default=-1) + 1
    bad: dict[str, list[list[str]]] = collections.defaultdict(list)
    for shard in shards:
        for key, kind, reason in shard.bad:
            bad[kind].append([key, reason])
    rows = sum(shard.rows for shard in shards)
    known = {
        origin: sum(shard.keypoints_from.get(origin, 0) for shard in shards)
        for origin in KEYPOINTS_FROM
    }
    return {
        "origin": origin,
        "entries": sum(shard.entries for shard in shards),
        "rows": rows,
        "identities": len(labels),
        "num_classes": num_classes,
        "labels_without_image": num_classes - len(labels),
        "rows_without_identity": sum(shard.no_identity for shard in shards),
        "rows_without_keypoints": rows - sum(known.values()),
        "keypoints_from": {origin: n for origin, n in known.items() if n},
        "rows_with_landmarks": sum(shard.rows_with_landmarks for shard in shards),
        "rows_with_all_landmarks": sum(
            shard.rows_with_all_landmarks for shard in shards
        ),
        "unused_landmark_rows": max(
            0, landmark_rows - sum(shard.from_table for shard in shards)
        ),
        "height": _range([shard.heights for shard in shards]),
        "width": _range([shard.widths for shard in shards]),
        "bad": {
            kind: {"count": len(entries), "entries": entries}
            for kind, entries in sorted(bad.items())
        },
    }


def _range(ranges: list[list[int]]) -> list[int]:
    values = [value for pair in ranges for value in pair]
    return [min(values), max(values)]


# Kinds of bad entries whose row is kept, without what was wrong.
KEPT = (
    *("missing landmarks", "wrong landmarks"),
    *("missing joints", "broken joints", "far joints", "joints of other length"),
    *("empty frames", "missing probe", "missing identity"),
)


def rejected(report: Mapping[str, Any]) -> list[RejectedRecord]:
    """The entries that gave no row.

    Args:
      report: of `make_report` or `GaitSource.write`.
    """
    return [
        RejectedRecord(key, kind, reason)
        for kind, bad in report["bad"].items()
        if kind not in KEPT
        for key, reason in bad["entries"]
    ]


def summarize(report: Mapping[str, Any], noun: str) -> str:
    """Say what was imported, and what of it is incomplete.

    Args:
      report: of `make_report` or `GaitSource.write`: rows, identities and bad.
      noun: what a row is, such as "images".
    Returns: "20 images, 10 identities; incomplete: missing landmarks 1".
    """
    text = f"{report['rows']} {noun}, {report['identities']} identities"
    splits = [f"{s} {report[s][noun]}" for s in ("train", "test") if s in report]
    text += f" ({', '.join(splits)})" if splits else ""
    kept = [f"{k} {b['count']}" for k, b in report["bad"].items() if k in KEPT]
    if unused := report.get("unused_landmark_rows", 0):
        kept.append(f"landmark rows of no image {unused}")
    return text + (f"; incomplete: {', '.join(kept)}" if kept else "")
