"""Template tags of the shelf, loaded by the pages of every app."""
