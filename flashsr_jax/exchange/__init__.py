"""Weights from and to other forms: the published PyTorch checkpoints, Orbax, packed training runs."""
