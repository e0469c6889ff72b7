from tests.tiny_run import command, tiny_folder, tiny_store

__all__ = ["command", "tiny_folder", "tiny_store"]
