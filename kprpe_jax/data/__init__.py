"""Importers, TFDS builders, synthetic data and the loader."""
