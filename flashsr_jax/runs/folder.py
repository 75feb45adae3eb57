"""A run's folder: the names of what lies in it beside its checkpoints, and how it is read."""

# What a run leaves in its folder, beside its checkpoints.
CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
PROVENANCE_FILE = "provenance.jsonl"
