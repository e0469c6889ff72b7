"""Protobuf messages and record files, without TensorFlow."""
