"""Coloured images in grey.

Source: ITU-R BT.601 luma, in Pillow's whole numbers, so that an image that is decoded as grey and one that is turned
grey afterwards are the same.
"""

RED, GREEN, BLUE, HALF, BITS = 19595, 38470, 7471, 1 << 15, 16  # shares of 2¹⁶


def luma(red, green, blue):
    """The grey of a colour: arrays or tensors of one shape, 32-bit integers in 0 … 255; returned likewise."""
    return (RED * red + GREEN * green + BLUE * blue + HALF) >> BITS


def check_channels(held: int, wanted: int) -> None:
    """ValueError unless images of `held` channels can be brought to `wanted`."""
    if held != wanted and {held, wanted} != {1, 3}:
        raise ValueError(f"images of {held} channels cannot be brought to {wanted!r}: only grey (1) to colour (3) and "
                         f"back")
