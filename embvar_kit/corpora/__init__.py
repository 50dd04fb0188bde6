"""Text in; sentences, token ids and words out."""
