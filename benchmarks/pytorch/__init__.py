"""Models of the same shape in PyTorch, which is no requirement of ours."""
