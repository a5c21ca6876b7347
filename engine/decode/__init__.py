"""From frame to transport payload: link layers, IP with fragments, transport headers."""
