"""How good a model is: metrics, baselines, the protocol, statistics, and what it found."""
