"""Attacks: pairs in, judged outcomes beside their certificates out."""
