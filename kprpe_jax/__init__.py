"""Recognizing people in bad pictures: keypoint-aware, purely functional JAX."""

__version__ = "0.1.0"
