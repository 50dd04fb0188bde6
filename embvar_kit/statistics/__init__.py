"""The labelled result of a pass, what is computed from it, and its file."""
