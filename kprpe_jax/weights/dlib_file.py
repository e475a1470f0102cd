"""Read the face ResNet of dlib from its own serialization, as float32 arrays.

The file is a list of numbers, names and flags in the order of the network's layers,
outermost first; nothing in it is executed. The order is known, so that each value is
compared with what must be there, and an array is read only once its size is right.
"""

import os
from pathlib import Path

import numpy as np

from kprpe_jax.backbones.dlib_resnet import MEANS, STEM, DlibResNet

_LARGEST = 1 << 26  # bytes; the published file has 22.5 million
_LEAST_NAME, _MOST_NAME = 1, 64  # bytes
_EXPONENTS = range(-200, 200)  # of serialized reals; infinity and NaN are larger
NOT_DLIB = (
    "must be dlib's face ResNet, dlib_face_recognition_resnet_model_v1.dat, as dlib "
    "writes it"
)


def read_dlib_file(
    path: str | os.PathLike, network: DlibResNet | None = None
) -> dict[str, np.ndarray]:
    """Read the weights of dlib's face ResNet.

    Args:
      path: of the .dat file.
      network: whose widths the file must have; None = the published one.
    Returns: float32 arrays in the file's order: conv0.weight [out, in, h, w],
      conv0.bias, affine0.weight, affine0.bias, conv1.weight, ..., fc.weight [in, out].
    Raises: ValueError: the file is cut or longer, is of another network, or holds
      numbers that are not finite.
    """
    size = os.path.getsize(path)
    if size > _LARGEST:
        raise ValueError(f"{path} {NOT_DLIB}; got {size >> 20} MB, which is too large.")
    reader = _Bytes(Path(path).read_bytes())
    try:
        arrays = _read_network(reader, network or DlibResNet())
        reader.expect_end()
    except ValueError as error:
        raise ValueError(f"{path} {NOT_DLIB}; {error}.") from error
    return arrays


class _Bytes:
    """A position in the bytes of a file."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > len(self.data) - self.at:
            raise ValueError(f"the file ends early, at byte {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self) -> int:
        """A control byte of sign and length, and as many bytes, the lowest first."""
        control = self.take(1)[0]
        length = control & 0x0F
        if control & 0x70 or not 1 <= length <= 8:
            raise ValueError(f"byte {self.at - 1} begins no number")
        value = int.from_bytes(self.take(length), "little")
        return -value if control & 0x80 else value

    def expect(self, what: str, *values: int) -> None:
        """Integers that must be these."""
        for value in values:
            if (got := self.integer()) != value:
                raise ValueError(f"{what} must be {value}, got {got}")

    def real(self) -> float:
        """A mantissa and an exponent of 2."""
        mantissa, exponent = self.integer(), self.integer()
        if exponent not in _EXPONENTS:
            raise ValueError(f"the number before byte {self.at} is not finite")
        return float(mantissa) * 2.0**exponent

    def name(self, *allowed: str) -> str:
        """A text that must be one of these."""
        length = self.integer()
        if not _LEAST_NAME <= length <= _MOST_NAME:
            raise ValueError(f"{' or '.join(allowed)} must stand at byte {self.at}")
        got = self.take(length).decode("ascii", "replace")
        if got not in allowed:
            raise ValueError(f"{' or '.join(allowed)} must be there, got {got[:40]!a}")
        return got

    def state(self) -> None:
        """What ends a layer: three flags and three empty tensors."""
        flags = self.take(3)
        if set(flags) - set(b"01"):
            raise ValueError(f"bytes {self.at - 3} to {self.at} are no flags")
        for _ in range(3):
            self.expect("the size of a layer's stored output", 2, 0, 0, 0, 0)

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor of this shape of 4 axes."""
        self.expect("the version of a tensor", 2)
        self.expect("a side of a tensor", *shape)
        count = int(np.prod(shape))
        values = np.frombuffer(self.take(4 * count), "<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError("weights must be finite numbers")
        return values

    def expect_end(self) -> None:
        """Nothing may follow."""
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes follow the last layer")


def _read_network(reader: _Bytes, network: DlibResNet) -> dict[str, np.ndarray]:
    """The whole file: versions and options from the outside in, layers back out."""
    reader.expect("the version of the loss", 1)
    reader.name("loss_metric_2")
    for _ in range(2):  # margin and threshold of the loss
        reader.real()
    reader.expect("the version of a layer", *_versions(network))
    reader.name("input_rgb_image_sized")
    for want in MEANS:
        if abs((got := reader.real()) - want) > 1e-3:
            raise ValueError(f"the mean color must have {want}, got {got:g}")
    reader.expect("the side of the images", *network.image_size)
    arrays: dict[str, np.ndarray] = {}
    width = network.widths[0]
    _read_conv(reader, arrays, (width, 3, STEM[0]), STEM[1], 0)
    _read_plain(reader, "relu_")
    _read_pool(reader, "max_pool_2", 3, 2)
    for stage, (width, size) in enumerate(
        zip(network.widths, network.stage_sizes, strict=True)
    ):
        for index in range(size):
            down = stage > 0 and index == 0
            before = network.widths[stage - 1] if down else width
            how = (2, 0) if down else (1, 1)
            _read_conv(reader, arrays, (width, before, 3), *how)
            _read_plain(reader, "relu_")
            _read_conv(reader, arrays, (width, width, 3), 1, 1)
            if down:
                _read_pool(reader, "avg_pool_2", 2, 2)
            _read_plain(reader, "add_prev_")
            _read_plain(reader, "relu_")
    _read_pool(reader, "avg_pool_2", 0, 1)
    reader.name("fc_2")
    size = width, network.output_dim
    reader.expect("the size of fc", size[1], size[0])
    arrays["fc.weight"] = reader.array((*size, 1, 1)).reshape(size)
    reader.expect("the shape of fc", 1, *size, 1, 1)
    reader.expect("the bias of fc", 1, 0, 0, 0, 0, 1)
    _read_rates(reader)
    return arrays


def _versions(network: DlibResNet) -> list[int]:
    """Of the nested layers, outermost first: 2, of a tag 1, of the first one 3."""
    versions = [2, 2]  # fc, the mean of the map
    for stage, size in reversed(list(enumerate(network.stage_sizes))):
        for index in reversed(range(size)):
            down = stage > 0 and index == 0
            # ReLU and sum; average, skip and tag; two convolutions between tags.
            versions += [2, 2, *([2, 1, 1] if down else []), 2, 2, 2, 2, 2, 1]
    return [*versions, 2, 2, 2, 3]


def _read_conv(
    reader: _Bytes,
    arrays: dict[str, np.ndarray],
    size: tuple[int, int, int],
    stride: int,
    padding: int,
) -> None:
    """A convolution of (outputs, inputs, side of the kernel), and its affine layer."""
    width, inputs, side = size
    count = width * inputs * side * side
    number = len(arrays) // 4
    reader.name("con_4")
    values = reader.array((count + width, 1, 1, 1))
    arrays[f"conv{number}.weight"] = values[:count].reshape(width, inputs, side, side)
    arrays[f"conv{number}.bias"] = values[count:]
    what = "an option of a convolution"
    reader.expect(what, width, side, side, stride, stride, padding, padding)
    reader.expect("the shape of a kernel", 1, width, inputs, side, side)
    reader.expect("the shape of a bias", 1, 1, width, 1, 1)
    _read_rates(reader)
    if not number:  # the layer that reads the images
        reader.expect("how many images a sample has", 1)
    reader.name("affine_")
    values = reader.array((2 * width, 1, 1, 1))
    arrays[f"affine{number}.weight"] = values[:width]
    arrays[f"affine{number}.bias"] = values[width:]
    for _ in range(2):
        reader.expect("the shape of an affine layer", 1, 1, width, 1, 1)
    reader.expect("the kind of an affine layer", 0)
    reader.state()


def _read_rates(reader: _Bytes) -> None:
    """How fast weights were learned, which is not used, and the end of the layer."""
    for _ in range(4):
        reader.real()
    reader.state()


def _read_plain(reader: _Bytes, name: str) -> None:
    """A layer without weights and options."""
    reader.name(name)
    reader.state()


def _read_pool(reader: _Bytes, name: str, side: int, stride: int) -> None:
    """A pooling layer; side 0 = the whole map."""
    reader.name(name)
    reader.expect(f"an option of {name}", side, side, stride, stride, 0, 0)
    reader.state()
