"""What a run leaves for people: figures, one self-contained page, a table."""
