"""The dashboard of a search: its page, live, rules tick by tick, and steering; `vsml rules dashboard`."""
