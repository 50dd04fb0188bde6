"""A Transformer and what is known of it: loading, bundled weights, normalization, the twins."""
