"""Small pictures in the page: images of the data set as PNG, votes as bars. All of them inside the page, none linked.

The policy of the page allows no style attribute: sizes are attributes of SVG, colours are classes of the style sheet.
"""

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

MOST_BARS = 20
SEEN = (0xD5, 0x5E, 0x00)  # vermilion of Okabe & Ito, which is seen on black, grey and white
MOST_COLOUR = 0.8  # of a map at its largest value: the image is still seen under it


def png(image_CHW: np.ndarray) -> bytes:
    """Return an 8-bit image as PNG (RFC 2083): three channels as colours, any other number as their mean in grey."""
    n_channels, height, width = image_CHW.shape
    if n_channels == 3:
        kind, pixels = 2, image_CHW.transpose(1, 2, 0).reshape(height, 3 * width)
    else:
        kind, pixels = 0, np.round(image_CHW.mean(axis=0)).astype(np.uint8)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1)  # a filter byte before each row: none
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def picture(image_CHW: np.ndarray, text: str) -> Markup:
    """Return an image for the page; `text` says what it is. One of a single row is a signal, drawn as a line."""
    if image_CHW.shape[1] == 1:
        values = image_CHW.mean(axis=(0, 1))
        points = " ".join(f"{100 * k / max(len(values) - 1, 1):.4g},{48 - 46 * v / 255:.4g}"
                          for k, v in enumerate(values.tolist()))  # fmt: skip
        return Markup(
            '<svg class="pixels signal" viewBox="-2 0 104 50" role="img" aria-label="{}"><polyline points="{}"/></svg>'
        ).format(text, points)
    source = "data:image/png;base64," + base64.b64encode(png(image_CHW)).decode()
    return Markup('<img class="pixels" src="{}" alt="{}">').format(source, text)


def overlay(image_CHW: np.ndarray, seen_HW: np.ndarray) -> np.ndarray:
    """Return an 8-bit image in grey under a map (0 to 255) in colour, (3, H, W): the higher, the more colour."""
    grey_HW, share_HW = image_CHW.mean(axis=0), MOST_COLOUR * seen_HW / 255
    mixed = [(1 - share_HW) * grey_HW + share_HW * channel for channel in SEEN]
    return np.round(np.stack(mixed)).astype(np.uint8)


def vote_bars(votes_C: Sequence[int], label: int, names: Sequence[str]) -> Markup:
    """Return how the replicas vote as bars, one a class; the class of the label is marked below its bar.

    With more than 20 classes only those that got a vote, and the label's, have a bar.
    """
    shown = [c for c in range(len(votes_C)) if len(votes_C) <= MOST_BARS or votes_C[c] or c == label]
    total = max(sum(votes_C), 1)
    said = ", ".join(f"{names[c]}: {votes_C[c]}" for c in sorted(shown, key=lambda c: -votes_C[c]) if votes_C[c])
    step = 100 / max(len(shown), 1)
    width = f"{0.8 * step:.4g}"
    parts = []
    for place, c in enumerate(shown):
        height, x = 26 * votes_C[c] / total, f"{(place + 0.1) * step:.4g}"
        css = "right" if c == label else "wrong"
        parts.append(f'<rect class="{css}" x="{x}" y="{28 - height:.4g}" width="{width}" height="{height:.4g}"/>')
        if c == label:
            parts.append(f'<rect class="label" x="{x}" y="30" width="{width}" height="3"/>')
    parts.append('<path class="base" d="M0 28.5H100"/>')
    head = f'<svg class="votes" viewBox="0 0 100 34" role="img" aria-label="Votes: {escape(said)}">'
    return Markup(head + "".join(parts) + "</svg>")
