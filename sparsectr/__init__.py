"""SparseCTR: click prediction over long behavior histories."""

__version__ = "0.1.0"
