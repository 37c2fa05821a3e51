"""The split of a box, found cell by cell: what the vectorised rule is held against."""

from skyscript_assets.lib.geometry import Bounds, Split, cells_of_bounds, split_of_cell


def split_of_bounds(bounds: Bounds, zoom: int) -> Split | None:
    """The one split that a box in degrees lies in, or None where it touches several."""
    splits = {split_of_cell(x, y) for x, y in cells_of_bounds(bounds, zoom)}
    return splits.pop() if len(splits) == 1 else None
