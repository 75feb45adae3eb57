"""The networks at every size, what they compute with, and the pipeline of them over one window."""
