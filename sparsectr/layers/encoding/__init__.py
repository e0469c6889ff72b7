"""What times and positions add to attention."""
