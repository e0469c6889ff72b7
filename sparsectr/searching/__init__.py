"""What `sparsectr.search` is made of."""
