"""What the commands have in common: flags with clear errors, and errors for people."""
