"""Certification: pairs in, certificate rows out."""
