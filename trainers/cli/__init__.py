"""What the commands have in common: flags and errors for people, and a quiet start."""
