"""The served graph: raw values in, probabilities out."""
