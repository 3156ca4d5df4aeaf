"""Programs as C that runs without Python: sources, weights, and the libraries made of them."""
