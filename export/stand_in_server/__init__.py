"""A stand-in for TensorFlow Serving, to try a client on: not for production."""
