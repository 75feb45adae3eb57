"""Super-resolution of signals of any length, rate and channel count, and of files."""
