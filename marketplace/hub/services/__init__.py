"""The writes of the hub protocol: what a commit says, what it makes of a tree, large files."""
