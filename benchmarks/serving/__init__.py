"""Parts of the benchmarks of serving."""
