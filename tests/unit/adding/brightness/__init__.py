"""A kind of work of its own."""
