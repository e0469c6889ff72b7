"""Recipes: one data set a file, values only."""
