"""Ways out for other programs' own protocols: the lab streaming layer, and Open Sound Control."""
