"""What is served, by name: signatures, buckets, missing values."""
