"""TFDS builders, readers of standard files, the loader, placement on a canvas."""
