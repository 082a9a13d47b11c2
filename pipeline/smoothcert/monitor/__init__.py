"""The watch over time: a random part of the pairs certified every night, and a test whether fewer are certified."""
