"""The search for local rules: draw, judge, breed and store programs."""
