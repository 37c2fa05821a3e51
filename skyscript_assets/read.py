"""Read pairs: those of a data folder or store, and those of others. Needs no Dagster.

from skyscript_assets.read import Pairs

for pair in Pairs("data", "train", share=0.3):
    pair.image, pair.text, pair.chip_id
"""

from skyscript_assets.lib.pairs.foreign import Foreign, foreign_pairs
from skyscript_assets.lib.pairs.reader import Pair, Pairs

__all__ = ["Foreign", "Pair", "Pairs", "foreign_pairs"]
