"""Checkpoints and trainers of our neighbours: T5X and Hugging Face."""
