"""Experiments of balanced_alignment."""
