"""The outer loop: what finds meta-parameters."""
