"""What is passed between layers."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the backend: eager, symbolic or a NumPy array.

Keras has no type for it. The name says in signatures what is a tensor and
what is not; the docstring says dtype and shape.
"""
