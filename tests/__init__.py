"""Tests of the project; the packages never import them."""
