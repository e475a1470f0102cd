"""The tables and figures of the four papers: one folder a paper (README.md)."""
