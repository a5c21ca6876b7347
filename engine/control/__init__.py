"""JSON-RPC over the Unix socket, and what it calls."""
