"""A model as graphs that run without this package, ONNX and StableHLO, and what has to be known beside them."""
