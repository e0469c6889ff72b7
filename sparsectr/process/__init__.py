"""What every command does alike: flags, progress, memory, a quiet start."""
