"""Requests to warm up, to verify and to score with."""
