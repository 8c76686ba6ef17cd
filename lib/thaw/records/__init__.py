"""What a finished run leaves on disk, and how it is read back."""
