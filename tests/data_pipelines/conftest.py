from tests.tiny_run import command, tiny_folder

__all__ = ["command", "tiny_folder"]
