"""Certification logs that others published, as runs of the vote rule."""
