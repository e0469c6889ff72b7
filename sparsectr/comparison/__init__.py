"""What `sparsectr.compare` is made of."""
