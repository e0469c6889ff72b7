"""What shows that a version serves what was trained."""
