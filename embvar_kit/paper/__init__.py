"""The authors' files and protocol."""
