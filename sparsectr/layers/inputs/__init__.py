"""Ids and numbers to rows."""
