"""The steps from raw rows to a store."""
