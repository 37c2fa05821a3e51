"""Which tags there are, and which of them can be seen at which resolution."""
