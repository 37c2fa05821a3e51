"""The horizontal differencing predictor of TIFF, undone by compiled code."""

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from skyscript_assets.lib.compiled import compiled


@compiled("void(uint8[:, :, ::1])")
def undo_differences(block: NDArray[np.uint8]) -> None:
    """Sum each band along the rows of a block, modulo 256, in place: TIFF 6.0, section 14, for samples of 8 bits.

    A block is uint8 (rows, columns, bands): differences to the pixel on the left, afterwards the values.
    """
    rows, columns, bands = block.shape
    if bands == 3:  # the sums of the three bands stay in registers
        for y in range(rows):
            red = green = blue = uint8(0)
            for x in range(columns):
                red = uint8(red + block[y, x, 0])
                green = uint8(green + block[y, x, 1])
                blue = uint8(blue + block[y, x, 2])
                block[y, x, 0], block[y, x, 1], block[y, x, 2] = red, green, blue
        return
    for y in range(rows):
        for band in range(bands):
            value = uint8(0)
            for x in range(columns):
                value = uint8(value + block[y, x, band])
                block[y, x, band] = value
