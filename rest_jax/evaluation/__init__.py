"""Text metrics, intervals and monitors of quality."""
