"""Experiments of kprpe."""
