"""Where histories are cut."""
