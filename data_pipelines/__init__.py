"""From raw files to the store that training reads."""
