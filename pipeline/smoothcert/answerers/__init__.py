"""Answerers: an image and a question in, text out. Multimodal models of transformers, and endpoints."""
