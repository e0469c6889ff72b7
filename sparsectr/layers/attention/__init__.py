"""What queries read, and how."""
