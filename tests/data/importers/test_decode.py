"""Odd images against NumPy: what each becomes, and which are refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.data.importers.decode import decode_rgb
from tests.data.importers.sources import encode


@pytest.fixture
def rgb(rng) -> np.ndarray:
    return rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_png_is_exact_and_keeps_its_size(rgb):
    got = decode_rgb(encode(rgb, "PNG"))
    np.testing.assert_array_equal(got, rgb)
    assert got.dtype == np.uint8
    assert got.flags.writeable


def test_jpeg_is_close(rgb):
    smooth = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None] * 9, (12, 20, 3))
    assert np.abs(decode_rgb(encode(smooth, quality=98)).astype(int) - smooth).max() < 6


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_gray_becomes_three_equal_channels(rgb, kind):
    got = decode_rgb(
        encode(rgb[..., 0], kind, **{"quality": 100} if kind == "JPEG" else {})
    )
    assert got.shape == (12, 20, 3)
    assert np.abs(got.astype(int) - rgb[..., :1]).max() <= (3 if kind == "JPEG" else 0)


def test_of_16_bits_the_upper_8_count(rng):
    deep = rng.integers(0, 65536, (6, 5), dtype=np.uint16)
    got = decode_rgb(encode(deep, "PNG"))
    np.testing.assert_array_equal(got, np.repeat((deep >> 8)[..., None], 3, -1))


def test_cmyk_is_converted_without_a_profile():
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0] = 255  # cyan: no red
    got = decode_rgb(encode(Image.fromarray(ink, "CMYK"), quality=100))
    assert np.abs(got.astype(int) - [0, 255, 255]).max() < 8


def test_palette_and_transparency_are_dropped(rgb):
    alpha = np.concatenate([rgb, np.zeros_like(rgb[..., :1])], axis=-1)
    np.testing.assert_array_equal(decode_rgb(encode(alpha, "PNG")), rgb)
    palette = Image.fromarray(rgb).convert("P")
    want = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode_rgb(encode(palette, "PNG")), want)


TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_applied(rgb, orientation):
    want = TURNS[orientation](rgb)
    got = decode_rgb(encode(rgb, "PNG", exif=exif(orientation)))
    np.testing.assert_array_equal(got, want)
    plain = decode_rgb(encode(rgb))
    got = decode_rgb(encode(rgb, exif=exif(orientation)))
    np.testing.assert_array_equal(got, TURNS[orientation](plain))


def test_exif_behind_the_pixels_of_a_png(rgb):
    png = encode(rgb, "PNG")
    body = b"eXIf" + exif(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = (
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    )
    got = decode_rgb(png[:-12] + chunk + png[-12:])
    np.testing.assert_array_equal(got, np.rot90(rgb, -1))


def with_precision(jpeg: bytes, bits: int) -> bytes:
    place = jpeg.index(b"\xff\xc0") + 4
    return jpeg[:place] + bytes([bits]) + jpeg[place + 1 :]


def png_chunk(body: bytes) -> bytes:
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def png_of(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(header) + png_chunk(pixels)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000"])
def test_further_formats(rgb, kind):
    """Those without loss are exact; of a GIF and an AVIF a flat image is."""
    flat = kind in ("GIF", "AVIF")
    want = np.full((16, 24, 3), (40, 120, 200), np.uint8) if flat else rgb
    options = dict(lossless=True) if kind == "WEBP" else {}
    options |= dict(irreversible=False) if kind == "JPEG2000" else {}
    got = decode_rgb(encode(want, kind, **options))
    assert np.abs(got.astype(int) - want).max() <= (3 if kind == "AVIF" else 0)


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_odd_tag_beside_the_orientation(rgb, orientation):
    """A second tag whose type does not exist; the orientation still counts."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, orientation)
    entries += struct.pack("<HHII", 0x9286, 99, 7, 0xFFFFFF)
    tags = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + bytes(4)
    got = decode_rgb(encode(rgb, exif=tags))
    np.testing.assert_array_equal(got, TURNS[orientation](decode_rgb(encode(rgb))))


def test_large_profiles_and_texts(rgb, rng):
    profile = rng.integers(0, 256, 2_500_000, dtype=np.uint8).tobytes()
    for kind in ("PNG", "JPEG"):
        plain, noted = encode(rgb, kind), encode(rgb, kind, icc_profile=profile)
        np.testing.assert_array_equal(decode_rgb(noted), decode_rgb(plain))
    text = zlib.compress(bytes(20_000_000))  # XMP: Pillow refuses so much
    png = encode(rgb, "PNG")
    body = b"iTXtXML:com.adobe.xmp\0\1\0\0\0" + text
    np.testing.assert_array_equal(
        decode_rgb(png[:33] + png_chunk(body) + png[33:]), rgb
    )


def test_floats_lie_in_0_to_1():
    gray = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    pfm = b"Pf\n4 3\n-1.0\n" + gray[::-1].tobytes()
    got = decode_rgb(pfm)
    np.testing.assert_array_equal(got[..., 0], np.round(gray * 255).astype(np.uint8))
    with pytest.raises(ValueError, match=r"floats must lie in 0\.\.1; .* 0\.\.2"):
        decode_rgb(b"Pf\n4 3\n-1.0\n" + (2 * gray[::-1]).tobytes())


@pytest.mark.slow
def test_a_photo_of_108_million_pixels():
    black = Image.new("1", (12_000, 9_000))
    black.putpixel((11_999, 0), 1)
    got = decode_rgb(encode(black, "PNG"))
    assert got.shape == (9_000, 12_000, 3)
    assert got[0, -1, 0] == 255


def test_a_heic():
    pytest.importorskip("pillow_heif", reason="HEIC needs the extra [heif]")
    flat = np.full((64, 96, 3), (40, 120, 200), np.uint8)
    got = decode_rgb(encode(flat, "HEIF", quality=95))
    assert np.abs(got.astype(int) - flat).max() <= 3


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda b: b[:-40], r"got \d+ bytes \(.*truncated"),
        (lambda b: b[:-400], r"got \d+ bytes \(Truncated File"),
        (lambda b: b"", r"got 0 bytes"),
        (lambda b: b"GIF89b" + b, "no decoder knows them"),
        (lambda b: b"....ftypheic" + b, r"a HEIC needs|no decoder knows|\("),
        (lambda b: with_precision(b, 12), r"JPEG \(of 8 bits\)"),
        (lambda b: with_precision(b, 16), r"JPEG \(of 8 bits\)"),
        (lambda b: png_of(12000, 12000), "it has 12000 x 12000 pixels"),
    ],
)
def test_refused_in_one_sentence(rgb, damage, match):
    with pytest.raises(ValueError, match=f"the image must be a whole .*{match}") as e:
        decode_rgb(damage(encode(rgb)))
    assert "\n" not in str(e.value)
    assert "0x" not in str(e.value)
