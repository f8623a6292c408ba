"""What R(x, y) may be: learned models, programs; their scale and their worth."""
