"""Layers that search a history for a candidate and read what is found."""
