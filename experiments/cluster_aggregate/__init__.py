"""Experiments of cluster_aggregate."""
