"""Recipes of data sets: one a file, values only."""
