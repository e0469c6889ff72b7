"""Impressions, clicks and rates of candidates' values, counted in the log."""
