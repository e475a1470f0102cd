"""Write TensorFlow Lite models that hold nothing but tensors."""

import struct

import numpy as np

FLOAT32, FLOAT16, INT32 = 0, 1, 2


class Builder:
    """Writes a flat buffer from its end to its start: offsets lead forward."""

    def __init__(self):
        self.parts, self.size = [], 0

    def add(self, data):
        """Put bytes, padded to 4, before all others; their distance from the end."""
        data += b"\0" * (-len(data) % 4)
        self.parts.insert(0, data)
        self.size += len(data)
        return self.size

    def vector(self, data, count):
        return self.add(struct.pack("<I", count) + data)

    def offsets(self, places):
        """A vector of offsets to tables."""
        here = self.size + 4 * len(places)
        places = [here - 4 * i - place for i, place in enumerate(places)]
        return self.vector(struct.pack(f"<{len(places)}I", *places), len(places))

    def table(self, *fields):
        """A table; a field is a number, a place in a list, or None."""
        size = 4 * (1 + len(fields))
        here = self.size + size
        data, slots = b"", []
        for number, field in enumerate(fields):
            slots.append(0 if field is None else 4 * (number + 1))
            if isinstance(field, list):
                field = here - 4 * (number + 1) - field[0]
            data += struct.pack("<I", field or 0)
        slots = struct.pack(f"<{2 + len(slots)}H", 4 + 2 * len(slots), size, *slots)
        slots += b"\0" * (-len(slots) % 4)
        place = self.add(struct.pack("<i", len(slots)) + data)
        self.add(slots)
        return place


def model(tensors, kinds=None):
    """The bytes of a model with these tensors."""
    out = Builder()
    buffers, graph = [out.table()], []
    for number, (name, array) in enumerate(tensors, start=1):
        raw = array.tobytes()
        data = out.vector(raw, len(raw))
        shape = out.vector(struct.pack(f"<{array.ndim}i", *array.shape), array.ndim)
        text = out.vector(name.encode() + b"\0", len(name))
        kind = (kinds or {}).get(name)
        if kind is None:
            kind = {"float32": FLOAT32, "float16": FLOAT16}.get(array.dtype.name, INT32)
        graph.append(out.table([shape], kind, number, [text]))
        buffers.append(out.table([data]))
    graph = out.table([out.offsets(graph)])
    graphs, stored = out.offsets([graph]), out.offsets(buffers)
    root = out.table(3, None, [graphs], None, [stored])
    return struct.pack("<I", 8 + out.size - root) + b"TFL3" + b"".join(out.parts)


TENSORS = [
    ("conv2d/Kernel", np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)),
    ("conv2d/Bias", np.arange(2, dtype=np.float16)),
    ("Paddings", np.zeros((4, 2), np.int32)),
]
