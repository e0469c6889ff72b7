"""The SavedModel and what serving it needs."""
