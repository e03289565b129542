"""What the commands have in common: errors for people."""
