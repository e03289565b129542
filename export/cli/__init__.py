"""What the commands have in common: errors for people, image files, and finished runs."""
