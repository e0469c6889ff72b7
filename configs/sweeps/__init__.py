"""Sweeps: variants of one recipe that are compared; one file a sweep."""
