"""Keras's `.keras`, `.weights.h5` and `.h5`: which variable is which in them."""
