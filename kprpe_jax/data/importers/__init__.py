"""Readers for the forms in which the field keeps faces; one form, one file."""
