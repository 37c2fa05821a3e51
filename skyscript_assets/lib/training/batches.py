"""How pairs are dealt into batches, so that equal captions seldom meet."""

import numpy as np

from skyscript_assets.lib.arrays import IntArray


def deal_batches(codes: IntArray, batch_size: int, rng: np.random.Generator) -> list[IntArray]:
    """Shuffle all pairs into batches that hold equal captions as seldom as possible.

    Identical captions in a batch are false negatives of the contrastive loss: each image is told to be unlike its own
    caption. The pairs of a caption are therefore dealt out like cards, one to each batch in turn; a caption with k
    pairs meets itself only if k exceeds the number of batches, and then ceil(k / batches) times at most. Captions come
    in random order, and so do the pairs of a caption. The remainder that fills no batch is another one each time.

    `codes` are caption codes of N pairs, N >= batch_size. Returns N // batch_size batches of pair numbers, int64
    (batch_size,), none twice.
    """
    batches = len(codes) // batch_size
    chosen = rng.permutation(len(codes))[: batches * batch_size]
    caption_order = rng.permutation(int(codes.max()) + 1)
    by_caption = chosen[np.argsort(caption_order[codes[chosen]], kind="stable")]
    dealt = by_caption.reshape(batch_size, batches).T
    return [dealt[batch].astype(np.int64) for batch in rng.permutation(batches)]
