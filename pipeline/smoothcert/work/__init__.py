"""What fills one table from pairs: certification and attacks; no Ray."""
