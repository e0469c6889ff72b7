"""A store to batches, in an order that is a function of the step."""
