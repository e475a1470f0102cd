"""Write a DlibResNet's arrays as dlib does: what the reader of `.dat` files reads."""

import jax
import numpy as np

from kprpe_jax.backbones.dlib_resnet import MEANS, DlibResNet
from kprpe_jax.weights import export_weights


def integer(value):
    size = max((abs(value).bit_length() + 7) // 8, 1)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(
        size, "little"
    )


def integers(*values):
    return b"".join(map(integer, values))


def real(value):
    """A mantissa of at most 24 bits and an exponent of 2."""
    mantissa, exponent = np.frexp(np.float32(value))
    return integers(round(float(mantissa) * 2**24), int(exponent) - 24)


def text(value):
    return integer(len(value)) + value.encode()


def tensor(values, *shape):
    flat = np.concatenate([np.ravel(x) for x in values]).astype("<f4")
    return integers(2, *shape) + flat.tobytes()


STATE = b"110" + integers(2, 0, 0, 0, 0) * 3
RATES = real(1) * 3 + real(0) + STATE


def convolution(arrays, number, stride, padding):
    weight, bias = (arrays[f"conv{number}.{n}"] for n in ("weight", "bias"))
    width, inputs, side, _ = weight.shape
    out = text("con_4") + tensor([weight, bias], weight.size + width, 1, 1, 1)
    out += integers(width, side, side, stride, stride, padding, padding)
    out += integers(1, width, inputs, side, side, 1, 1, width, 1, 1) + RATES
    out += integers(1) if not number else b""
    affine = [arrays[f"affine{number}.{n}"] for n in ("weight", "bias")]
    out += text("affine_") + tensor(affine, 2 * width, 1, 1, 1)
    return out + integers(1, 1, width, 1, 1) * 2 + integers(0) + STATE


def pool(name, side, stride):
    return text(name) + integers(side, side, stride, stride, 0, 0) + STATE


def dlib_bytes(model: DlibResNet, variables) -> bytes:
    """The file."""
    arrays = export_weights(model, variables)
    versions, layers, number = [], b"", 0

    def conv(stride, padding):
        nonlocal layers, number
        layers += convolution(arrays, number, stride, padding)
        number += 1

    def plain(*names):
        nonlocal layers
        layers += b"".join(text(name) + STATE for name in names)

    conv(2, 0)
    plain("relu_")
    layers += pool("max_pool_2", 3, 2)
    for stage, size in enumerate(model.stage_sizes):
        for index in range(size):
            down = stage and not index
            versions.append("tag con affine relu con affine".split())
            conv(*((2, 0) if down else (1, 1)))
            plain("relu_")
            conv(1, 1)
            if down:
                layers += pool("avg_pool_2", 2, 2)
                versions.append("tag tag avg".split())
            versions.append("sum relu".split())
            plain("add_prev_", "relu_")
    layers += pool("avg_pool_2", 0, 1)
    fc = arrays["fc.weight"]
    layers += text("fc_2") + integers(fc.shape[1], fc.shape[0])
    layers += tensor([fc], *fc.shape, 1, 1)
    layers += integers(1, *fc.shape, 1, 1, 1, 0, 0, 0, 0, 1) + RATES
    nested = [2, 2, *(1 if x == "tag" else 2 for v in versions[::-1] for x in v[::-1])]
    head = integer(1) + text("loss_metric_2") + real(0.04) + real(0.6)
    head += integers(*nested, 2, 2, 2, 3) + text("input_rgb_image_sized")
    head += b"".join(map(real, MEANS)) + integers(*model.image_size)
    return head + layers


TINY = DlibResNet(
    image_size=(87, 87),
    output_dim=5,
    widths=(2, 3, 3, 4, 4),
    stage_sizes=(1, 2, 1, 1, 1),
)


def tiny_file():
    """Variables of a small network, and its file."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(TINY.init, jax.random.key(0), np.zeros((1, 87, 87, 3)))
    variables = jax.tree.map(
        lambda s: rng.normal(size=s.shape).astype(np.float32), shapes
    )
    return variables, dlib_bytes(TINY, variables)
