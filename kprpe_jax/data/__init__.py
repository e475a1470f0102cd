"""Importers, TFDS builders, drawn faces, augmentation, and the loader."""
