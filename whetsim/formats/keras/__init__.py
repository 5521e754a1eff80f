"""Keras files: `.keras`, `.h5` of Keras 2 and 3, and those of the Whetstone package."""
