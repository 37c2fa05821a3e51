"""The synthetic painter: OSM objects become an orthophoto that is painted, no photograph, and called synthetic.

Objects are sorted into layers of styled polygons (`plan`), and blocks of the canvas are painted one by one (`block`):
an albedo, a height and a surface class per pixel, lit by a sun (`light`) and seen by a camera (`sensor`). It knows
nothing of captions, labels or chips.
"""
