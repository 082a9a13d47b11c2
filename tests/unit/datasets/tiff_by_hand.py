"""TIFF files written from the specification (TIFF 6.0) alone, and what their pixels must look like.

Nothing here knows Pillow or the decoder under test: the writer packs numbers into bytes, and ``expected`` turns the
same numbers into RGB by the formulas of the specification.
"""

import itertools
import struct
import zlib
from dataclasses import dataclass, replace

import numpy as np

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
HEIGHT, WIDTH = 5, 7


@dataclass(frozen=True)
class Tiff:
    """One way to write an image: see TIFF 6.0, sections 4 to 8, 16, 18, 21."""

    photometric: int
    bits: int
    samples: int
    extra: tuple[int, ...] = ()
    order: str = "<"
    planar: int = 1
    compression: int = 1
    sample_format: int = 1
    rows_per_strip: int = HEIGHT
    more: tuple[tuple[int, int, tuple[int, ...]], ...] = ()
    """Further tags: number, type (3: SHORT, 5: RATIONAL as pairs), values."""

    def pixels(self, seed=0):
        """(height, width, samples) random numbers of so many bits; premultiplied where there is such alpha."""
        random = np.random.default_rng(seed)
        values = random.integers(0, 1 << self.bits, (HEIGHT, WIDTH, self.samples))
        if self.extra[:1] == (1,):
            colours = self.samples - len(self.extra)
            alpha = np.maximum(values[..., colours], (1 << self.bits) // 2)
            values[..., colours] = alpha
            values[..., :colours] = values[..., :colours] * alpha[..., None] // ((1 << self.bits) - 1)
        return values

    def colour_map(self):
        """(3, colours) of a palette, 16 bits each."""
        return np.random.default_rng(9).integers(0, 256, (3, 1 << self.bits)) * 257

    def encoded(self, values):
        """The file."""
        layers = [values] if self.planar == 1 else [values[..., i : i + 1] for i in range(self.samples)]
        strips = [
            self._strip(layer[top : top + self.rows_per_strip])
            for layer in layers
            for top in range(0, HEIGHT, self.rows_per_strip)
        ]
        tags = [
            (256, 3, (WIDTH,)),
            (257, 3, (HEIGHT,)),
            (258, 3, (self.bits,) * self.samples),
            (259, 3, (self.compression,)),
            (262, 3, (self.photometric,)),
            (277, 3, (self.samples,)),
            (278, 3, (self.rows_per_strip,)),
            (279, 4, tuple(len(strip) for strip in strips)),
            (284, 3, (self.planar,)),
            (339, 3, (self.sample_format,) * self.samples),
            *self.more,
        ]
        if self.photometric == PALETTE:
            tags.append((320, 3, tuple(self.colour_map().reshape(-1).tolist())))
        if self.extra:
            tags.append((338, 3, self.extra))
        numbers = {number for number, _, _ in tags} | {273}
        position = 8 + 2 + 12 * len(numbers) + 4
        contents = b""
        entries = []
        starts = tuple(itertools.accumulate((len(strip) for strip in strips[:-1]), initial=0))
        size = sum(self._size(kind, values) for _, kind, values in tags) + self._size(4, starts)
        tags.append((273, 4, tuple(position + size + start for start in starts)))
        for number, kind, values_ in sorted(tags):
            data = self._packed(kind, values_)
            head = struct.pack(self.order + "HHI", number, kind, len(values_) // (2 if kind == 5 else 1))
            if len(data) <= 4:
                entries.append(head + data.ljust(4, b"\0"))
            else:
                entries.append(head + struct.pack(self.order + "I", position + len(contents)))
                contents += data
        contents = contents.ljust(size, b"\0")
        start = (b"II" if self.order == "<" else b"MM") + struct.pack(self.order + "HI", 42, 8)
        directory = struct.pack(self.order + "H", len(entries)) + b"".join(entries) + bytes(4)
        return start + directory + contents + b"".join(strips)

    def expected(self, values):
        """(height, width, 3) in [0, 1]: the colours, transparency dropped."""
        top = (1 << self.bits) - 1
        share = values / top
        if self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
            grey = share[..., 0]
            if self.extra[:1] == (1,):
                grey = grey / share[..., 1]
            grey = 1 - grey if self.photometric == WHITE_IS_ZERO else grey
            return np.repeat(grey[..., None], 3, axis=2)
        if self.photometric == PALETTE:
            return self.colour_map()[:, values[..., 0]].transpose(1, 2, 0) / 65535
        if self.photometric == CMYK:
            return (1 - share[..., :3]) * (1 - share[..., 3:4])
        if self.photometric == YCBCR:
            y, blue, red = values[..., 0], values[..., 1] - 128.0, values[..., 2] - 128.0
            rgb = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], axis=2)
            return np.clip(rgb / 255, 0, 1)
        if self.extra[:1] == (1,):
            return np.clip(share[..., :3] / share[..., 3:4], 0, 1)
        return share[..., :3]

    def with_order(self, order):
        return replace(self, order=order)

    def _strip(self, values):
        if self.bits >= 8:
            data = values.astype(f"{self.order}u{self.bits // 8}").tobytes() if self.bits != 12 else b""
        if self.bits < 8 or self.bits == 12:
            shifts = np.arange(self.bits - 1, -1, -1)
            rows = values.reshape(values.shape[0], -1)
            bits = (rows[..., None] >> shifts & 1).astype(np.uint8).reshape(values.shape[0], -1)
            data = b"".join(np.packbits(row).tobytes() for row in bits)
        return zlib.compress(data) if self.compression == 8 else data

    def _packed(self, kind, values):
        return struct.pack(self.order + f"{len(values)}{'H' if kind == 3 else 'I'}", *values)

    def _size(self, kind, values):
        length = len(self._packed(kind, values))
        return 0 if length <= 4 else length
