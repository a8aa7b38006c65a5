"""Meta-testing: candidates on the same episodes, and their scores."""
