"""The TCP observer: what the kernel's TCP does, counted in the kernel and read here (DESIGN 6)."""
