"""How networks are trained: the loop, the state, losses, logs and evaluation during a run; the stages."""
