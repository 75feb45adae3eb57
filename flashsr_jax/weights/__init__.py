"""Weights files: read and written, and the one that comes along."""
