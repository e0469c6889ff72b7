"""A store on disk: its columns, its vocabularies, what it is known by."""
