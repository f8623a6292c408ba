"""Rating by hand: what is shown, in which order, where ratings are kept, the page."""
