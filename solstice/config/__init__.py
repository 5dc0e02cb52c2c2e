"""What operators and users write: settings, the image map, job files.  Layer 2.

Everything is refused at this edge, with the flag, variable or FILE:LINE, what is wrong and what would be right;
behind it are only frozen values.
"""
