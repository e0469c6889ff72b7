from tests.tiny_run import command, finished_run, tiny_folder, tiny_store

__all__ = ["command", "finished_run", "tiny_folder", "tiny_store"]
