"""What is trained, one file a stage, each to be read from top to bottom."""
