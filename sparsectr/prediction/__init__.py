"""Scores of requests in raw values, without a server."""
