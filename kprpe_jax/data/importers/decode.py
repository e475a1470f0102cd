"""Encoded image to RGB: the one place that says what an odd image becomes."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_FORMATS = ("JPEG", "PNG", "PPM")  # the last is PGM, too
_MAX_PIXELS = 1 << 26  # 8192 x 8192; more is a decompression bomb, not a face


def decode_rgb(encoded: bytes) -> np.ndarray:
    """Decode a JPEG, PNG, PGM or PPM to RGB.

    The size stays as it is, square or not. Gray becomes three equal channels; of 16
    bits the upper 8 count; CMYK is converted without a color profile; transparency is
    dropped. EXIF orientation is applied: viewers and OpenCV show the image so, and
    landmark tables are made from what is shown. JPEGs of 12 or 16 bits are refused:
    the decoder does not know them.

    Args:
      encoded: the file's bytes.
    Returns: uint8 [H, W, 3], 0..255.
    Raises: ValueError: none of these, broken, truncated, above 2**26 pixels.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels")
        image.load()  # a PNG may hold its EXIF after the pixels
        if image.info.get("exif"):
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):  # Pillow would clip 16 bits instead of scaling
            gray = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
            return np.repeat(gray[..., None], 3, axis=-1)
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    # Which exception damage raises depends on where it is.
    except Exception as e:
        raise ValueError(
            "decode_rgb: the image must be a whole JPEG, PNG, PGM or PPM, a JPEG of 8 "
            f"bits, with at most 2**26 pixels; got {len(encoded)} bytes ({_what(e)}); "
            "replace it"
        ) from e


def _what(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text is a memory address
        return "no decoder knows them"
    return str(error).split("\n")[0][:160] or type(error).__name__
