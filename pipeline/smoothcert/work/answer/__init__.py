"""Questions to a multimodal model about every pair, and certified answers."""
