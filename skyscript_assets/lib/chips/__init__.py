"""Which objects become chips, and the cutting of them."""
