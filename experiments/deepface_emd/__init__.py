"""Experiments of deepface_emd."""
