"""Raw files: how they are read, and what a data set says of them."""
