"""Where the five points of an aligned face belong."""

import numpy as np

# Left eye, right eye, nose, mouth corners: (x, y) in pixels of a 112 x 112
# image. Source: SphereFace (Liu et al., 2017), whose 112 x 96 points ArcFace (Deng et
# al., 2019) moved 8 pixels to the right. They are taken for pixel-edge coordinates, as
# keypoints are; libraries differ about it by half a pixel.
ARCFACE_112 = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    np.float32,
)
# The same points in a 150 x 150 face chip of dlib, a quarter of the face around it:
# medians of 495 photos with points labeled by hand, in chips that dlib cut by its own
# points, the corners of the eyes and the base of the nose
# (tests/fixtures/packages/make_dlib.py).
DLIB_CHIP_150 = np.array(
    [
        [46.46, 44.85],
        [100.51, 44.82],
        [72.97, 76.66],
        [50.40, 103.86],
        [96.87, 104.01],
    ],
    np.float32,
)
_TEMPLATES = {"template": (ARCFACE_112, 112), "chip": (DLIB_CHIP_150, 150)}
# The first in fractions of the image, for configs.
FACE_POINTS = tuple(
    (round(float(x), 4), round(float(y), 4)) for x, y in ARCFACE_112 / 112
)


def face_template(
    size: tuple[int, int] = (112, 112), framing: str = "template"
) -> np.ndarray:
    """The five points in an aligned image of any size.

    The face fills the height as in the template's own square and is centered from left
    to right: (112, 96) gives the older, narrower crop.

    Args:
      size: (height, width).
      framing: "template" or "chip", of `InputSpec`.
    Returns: float32 [5, 2], (x, y) in pixel-edge coordinates.
    """
    height, width = size
    points, side = _TEMPLATES[framing]
    centered = points - np.float32([side / 2, 0])
    return centered * np.float32(height / side) + np.float32([width / 2, 0])
