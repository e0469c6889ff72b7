"""Requests in raw values: what they hold, checked, padded, in files."""
