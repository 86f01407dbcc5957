"""Pictures made smaller where many of them share one file."""

from __future__ import annotations

import io

from PIL import Image


def with_fewer_colours(png: bytes) -> bytes:
    """The picture on white in at most 256 colours, as PNG."""
    with Image.open(io.BytesIO(png)) as image:
        colours = image.convert("RGBA")
    page = Image.new("RGBA", colours.size, "white")
    page.alpha_composite(colours)
    written = io.BytesIO()
    flat = page.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    flat.save(written, "PNG", optimize=True)
    return written.getvalue()
