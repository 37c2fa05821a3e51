"""The synthetic painter: OSM objects become an orthophoto that is painted, no photograph, and called synthetic.

Objects become shapes with looks in layers (`layers`); layer after layer is laid onto a canvas of albedo, height and
surface, crowns are stamped on it, the sun lights it, a camera sees it (`painting`, by the strokes of `kernels`). The
painter knows nothing of captions, labels or chips.
"""
