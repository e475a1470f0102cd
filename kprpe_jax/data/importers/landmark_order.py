"""The order in which a table holds five points: by its header, or seen by the faces."""

import re
from collections.abc import Sequence

import numpy as np

from kprpe_jax.geometry.template import FACE_POINTS

POINTS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
_X_Y = ("x", "y")
_NUMBERED = re.compile(r"(?:(?P<a>[xy])_?(?P<m>\d+)|[a-z]*_?(?P<n>\d+)_?(?P<b>[xy]))")
# How ten numbers of a row may hold five (x, y): indices that bring them into our order.
_LAYOUTS = {
    "x, y of each point": [*range(10)],
    "y before x": [1, 0, 3, 2, 5, 4, 7, 6, 9, 8],
    "x1..x5,y1..y5": [0, 5, 1, 6, 2, 7, 3, 8, 4, 9],
    "y1..y5,x1..x5": [5, 0, 6, 1, 7, 2, 8, 3, 9, 4],
}
# What comes first: places of our five points in the row.
_ORDERS = {
    "": [0, 1, 2, 3, 4],
    "the subject's left first": [1, 0, 2, 4, 3],
    "the nose first": [1, 2, 0, 3, 4],
    "the nose first, then the subject's left": [2, 1, 0, 4, 3],
    "the nose last": [0, 1, 4, 2, 3],
    "the nose last, the subject's left first": [1, 0, 4, 3, 2],
}
# Upright faces so ordered look as faces on their side in our order.
_AMBIGUOUS = {("y before x", "the subject's left first")}


def header_order(names: Sequence[str]) -> list[int] | None:
    """Columns of the coordinates in our order, from the names of the columns.

    Args:
      names: without that of the image, such as "lefteye_x" or "x1"; other names, as
        those of scores, are passed over.
    Returns: 2 K places; K = 5 where points have names, any number from 3 where they
      have numbers. None where the names do not say it.
    Raises: ValueError: a coordinate named twice, or some that are missing.
    """
    found = [(place, _coordinate(name)) for place, name in enumerate(names)]
    places = {what: place for place, what in found if what is not None}
    named = sum(what is not None for _, what in found)
    if named < 3:
        return None
    numbers = sorted({point for point, _ in places if isinstance(point, int)})
    points = numbers or POINTS
    wanted = [(point, axis) for point in points for axis in _X_Y]
    if named != len(wanted) or len(points) < 3 or {*wanted} != {*places}:
        raise ValueError(
            "must name x and y of five points once each, or of any three or more that "
            "are numbered; got " + ",".join(names)[:200]
        )
    return [places[what] for what in wanted]


def names_coordinate(name: str) -> bool:
    """Whether the name of a column is that of a point's x or y."""
    return _coordinate(name) is not None


def _coordinate(name: str) -> tuple[int | str, str] | None:
    """Which point and axis a column is of; None for another column."""
    name = re.sub(r"[\s.\-]+", "_", name.strip().lower())
    numbered = _NUMBERED.fullmatch(name)
    if numbered:
        axis = numbered["a"] or numbered["b"]
        return int(numbered["m"] or numbered["n"]), axis
    axis = name[-1:] if name[-1:] in _X_Y else name[:1]
    if axis not in _X_Y:
        return None
    if "nose" in name:
        return "nose", axis
    part = "eye" if "eye" in name else "mouth" if re.search("mouth|lip", name) else ""
    side = "left" if "left" in name else "right" if "right" in name else ""
    if not (part and side):
        return None
    return f"{side} {part}{' corner' if part == 'mouth' else ''}", axis


def seen_order(rows: np.ndarray) -> str | None:
    """Name another order of coordinates that the faces of a table show.

    Args:
      rows: float [N, 10], NaN where unknown.
    Returns: None where our own order fits half of the faces that are known, or no other
      one fits all of them.
    """
    rows = rows[np.isfinite(rows).all(1)]
    if not len(rows) or _is_face(rows.reshape(-1, 5, 2)).mean() >= 0.5:
        return None
    fitting = {}
    for layout, columns in _LAYOUTS.items():
        for order, places in _ORDERS.items():
            points = rows[:, columns].reshape(-1, 5, 2)[:, places]
            if (layout, order) not in _AMBIGUOUS and _is_face(points).all():
                named = ", ".join(filter(None, (layout, order)))
                fitting[named] = _unlikeness(points)
    return min(fitting, key=fitting.get, default=None)


def _is_face(points: np.ndarray) -> np.ndarray:
    """Whether [N, 5, 2] are ordered as upright faces are: bool [N]."""
    x, y = points[..., 0], points[..., 1]
    eyes, nose, mouth = y[:, :2].mean(1), y[:, 2], y[:, 3:].mean(1)
    sides = (x[:, 0] < x[:, 1]) & (x[:, 3] < x[:, 4])
    # A head is higher than the tilt of its eyes: else x and y could be exchanged.
    tilt = np.abs(y[:, :2] - eyes[:, None]).max(1)
    return sides & (eyes < nose) & (nose < mouth) & (tilt < mouth - eyes)


def _unlikeness(points: np.ndarray) -> float:
    """Mean share of the points' spread that no similarity of the template explains."""
    x, y = np.moveaxis(points, -1, 0)
    found, wanted = x + 1j * y, np.asarray(FACE_POINTS) @ [1, 1j]
    found, wanted = found - found.mean(1, keepdims=True), wanted - wanted.mean()
    explained = np.abs(found @ wanted.conj()) ** 2 / (np.abs(wanted) ** 2).sum()
    return float(1 - (explained / (np.abs(found) ** 2).sum(1)).mean())
