"""Encoded image to RGB: the one place that says what an odd image becomes."""

import contextlib
import io
import struct
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

with contextlib.suppress(ImportError):  # the extra [heif]
    import pillow_heif

    pillow_heif.register_heif_opener()

# Bitmaps that Pillow decodes itself; formats that run other programs or describe
# drawings (EPS, WMF, PDF, ...) stay out.
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000")
_HEIF = "HEIF"
_MAX_PIXELS = 1 << 27  # a camera has 108 million; more is a decompression bomb
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # our limit
_ORIENTATION = 0x0112
_TURNS = {  # EXIF orientation -> what shows the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXT = (b"iCCP", b"iTXt", b"tEXt", b"zTXt")


def decode_rgb(encoded: bytes) -> np.ndarray:
    """Decode a JPEG, PNG, PGM, PPM, BMP, GIF, TIFF, WebP, AVIF or JPEG 2000 to RGB.

    With the extra [heif] also a HEIC. Of several images in a file the first counts. The
    size stays as it is, square or not. Gray becomes three equal channels; of 16 bits
    the upper 8 count; floats are taken as 0..1; CMYK is converted without a color
    profile; transparency is dropped. EXIF orientation is applied: viewers and OpenCV
    show the image so, and landmark tables are made from what is shown. JPEGs of 12 or
    16 bits are refused: the decoder does not know them.

    Args:
      encoded: the file's bytes.
    Returns: uint8 [H, W, 3], 0..255.
    Raises: ValueError: none of these, broken, truncated, above 2**27 pixels.
    """
    try:
        formats = (*_FORMATS, _HEIF) if _HEIF in Image.OPEN else _FORMATS
        image = Image.open(io.BytesIO(_without_png_text(encoded)), formats=formats)
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels")
        image.load()  # a PNG may hold its EXIF after the pixels
        turn = None if image.format == _HEIF else _TURNS.get(_orientation(image))
        image = image if turn is None else image.transpose(turn)
        if image.mode.startswith("I"):  # Pillow would clip 16 bits instead of scaling
            gray = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
            return np.repeat(gray[..., None], 3, axis=-1)
        if image.mode == "F":  # likewise
            return _of_floats(np.asarray(image))
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    # Which exception damage raises depends on where it is.
    except Exception as e:
        raise ValueError(
            "the image must be a whole JPEG (of 8 bits), PNG, PGM, PPM, "
            "BMP, GIF, TIFF, WebP, AVIF or JPEG 2000 with at most 2**27 pixels; got "
            f"{len(encoded)} bytes ({_what(e, encoded)}); replace it"
        ) from e


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 where there is none; other tags may be damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # what damage raises depends on where it is
        return 1


def _of_floats(gray: np.ndarray) -> np.ndarray:
    if not (np.isfinite(gray).all() and 0 <= gray.min() and gray.max() <= 1):
        raise ValueError(
            f"its floats must lie in 0..1; they range over {gray.min():g}.."
            f"{gray.max():g}"
        )
    return np.repeat(np.uint8(np.round(gray * 255))[..., None], 3, axis=-1)


def _without_png_text(encoded: bytes) -> bytes:
    """A PNG without texts and color profile, of which Pillow refuses large ones."""
    if not encoded.startswith(_PNG):
        return encoded
    parts, place = [_PNG], len(_PNG)
    while place + 8 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, place)
        end = place + 12 + length
        if kind not in _PNG_TEXT:
            parts.append(encoded[place:end])
        place = end
    return b"".join([*parts, encoded[place:]])


def _what(error: Exception, encoded: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text is a memory address
        if encoded[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
            return "a HEIC needs the extra [heif], pip install pillow-heif"
        return "no decoder knows them"
    return str(error).split("\n")[0][:160] or type(error).__name__
