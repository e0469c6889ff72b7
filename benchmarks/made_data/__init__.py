"""Made data of any size."""
