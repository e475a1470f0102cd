"""Experiments of face_vit."""
