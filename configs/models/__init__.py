"""Recipes of models: one a file, whose name is the model's."""
