"""Wirings: which units a layer connects, and how messages travel along its edges."""
