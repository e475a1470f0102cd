"""Metrics and protocols, compiled over any mesh."""
