"""What the engine tells others of itself: metrics."""
