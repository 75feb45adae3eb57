"""Recordings: datasets of them, built and read, training examples and batches, fixed clips."""

CLASSES = ("speech", "music", "effects")
SPLITS = ("train", "validation", "test")
# Beside the records of a dataset: every recording, those that were left out and why, and what it was built from.
MANIFEST, LEFT_OUT, INPUTS = "manifest.csv", "left_out.csv", "build.json"
