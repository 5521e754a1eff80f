"""NIR files: the neuromorphic intermediate representation, read and written as HDF5."""
