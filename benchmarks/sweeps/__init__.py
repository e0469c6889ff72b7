"""What `benchmarks.sweep` is made of."""
