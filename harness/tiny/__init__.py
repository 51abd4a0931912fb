"""The embedded default: a made-up mini web, and a model of about a million parameters that is at home in it."""
