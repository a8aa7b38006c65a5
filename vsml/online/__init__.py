"""Estimators that learn online; the doors to them are `vsml.sklearn` and `vsml.river`."""
