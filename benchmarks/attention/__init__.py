"""Parts of the benchmarks of attention."""
