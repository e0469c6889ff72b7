"""What recipes of several models share, without TensorFlow."""
