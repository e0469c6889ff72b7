"""Pure functions of tensors, without weights."""
