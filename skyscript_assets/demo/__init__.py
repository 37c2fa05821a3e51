"""The demo's imagery: synthetic orthophotos painted from OSM objects, and the benchmark that is cut from them."""
