"""What the commands have in common: errors for people, and a quiet start."""
