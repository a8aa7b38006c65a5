"""Laws of learning: forms, fits with intervals, the points that runs give, and plans."""
