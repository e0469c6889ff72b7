"""One module for each data set that there is a preparation of."""
